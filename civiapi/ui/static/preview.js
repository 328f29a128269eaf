// The preview: calculates the plan while showing progress, and starts the sync that was previewed.
import { call, confirmIn, showMessage, showProblem } from "./api.js";

const message = document.getElementById("message");

for (const form of document.querySelectorAll("form[data-plan]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const startedAt = Date.now();
    const show = () => { message.textContent = `Calculating for ${Math.round((Date.now() - startedAt) / 1000)} s. This changes nothing.`; };
    button.disabled = true;
    showMessage(message, "Calculating. This changes nothing.");
    message.setAttribute("aria-live", "off");
    const timer = setInterval(show, 1000);
    try {
      const answer = await call("Mailchimpsync", "plan", { group_id: form.dataset.plan, options: { limit: 1 } });
      location.assign(`${form.getAttribute("action")}?${new URLSearchParams({ plan_id: answer.values.plan_id })}`);
    } catch (problem) {
      showProblem(message, "No preview could be calculated. Nothing was changed.", problem, "Mailchimpsync.plan");
      button.disabled = false;
    } finally {
      clearInterval(timer);
      message.removeAttribute("aria-live");
    }
  });
}

// The sync continues when this page is left; the status page shows its progress.
const go = document.getElementById("go");
go?.addEventListener("click", async () => {
  const isBraked = "confirm" in go.dataset;
  if (isBraked && !await confirmIn(document.getElementById("go-dialog"))) return;
  go.disabled = true;
  const asked = { group_id: go.dataset.group, max_time: 0, ...(isBraked ? { confirm: 1 } : {}) };
  const started = call("Mailchimpsync", "fetchandreconcile", asked, { keepalive: true });
  try {
    await Promise.race([started, new Promise((resolve) => { setTimeout(resolve, 500); })]);
    location.assign(go.dataset.back);
  } catch (problem) {
    showProblem(message, "The sync has not started, or it stopped at once. Nothing is lost.", problem, "Mailchimpsync.fetchandreconcile");
    go.disabled = false;
  }
});
