// The preview: works the plan out without leaving the page blank meanwhile, and starts the sync that was previewed.
import { call, confirmIn, tell } from "./api.js";

const line = document.getElementById("line");

for (const form of document.querySelectorAll("form[data-plan]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const begun = Date.now();
    const show = () => { line.textContent = `Working it out for ${Math.round((Date.now() - begun) / 1000)} s. Nothing is changed by this.`; };
    button.disabled = true;
    tell(line, "Working it out. Nothing is changed by this.");
    line.setAttribute("aria-live", "off");
    const ticking = setInterval(show, 1000);
    try {
      const answer = await call("Mailchimpsync", "plan", { group_id: form.dataset.plan, options: { limit: 1 } });
      location.assign(`${form.getAttribute("action")}?${new URLSearchParams({ plan_id: answer.values.plan_id })}`);
    } catch (problem) {
      tell(line, problem.message, problem);
      button.disabled = false;
    } finally {
      clearInterval(ticking);
      line.removeAttribute("aria-live");
    }
  });
}

// The sync goes on when this page is left, so its progress is watched where it is shown.
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
    tell(line, problem.message, problem);
    go.disabled = false;
  }
});
