// "Run now": makes the call as the user and shows the time elapsed, then the result. Without this the button posts its
// form, and the page returns when the job has finished.
import { call, showMessage } from "./api.js";

for (const form of document.querySelectorAll("form[data-run]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = form.dataset.run;
    const status = document.getElementById(`result-${id}`);
    const button = form.querySelector("button");
    const startedAt = Date.now();
    const show = () => { status.textContent = `Running for ${Math.round((Date.now() - startedAt) / 1000)} s…`; };
    button.disabled = true;
    showMessage(status, "Running…");
    const timer = setInterval(show, 1000);
    try {
      await call("Job", "execute", { id });
      location.assign(`${location.pathname}?done=ran&id=${id}&at=${Date.now()}#job-${id}`);
    } catch (problem) {
      showMessage(status, problem.message, problem);
      button.disabled = false;
    } finally {
      clearInterval(timer);
    }
  });
}
