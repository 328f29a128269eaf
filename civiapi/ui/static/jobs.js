// Running a job from its card: the call is made as the visitor, the card says how long it has been at it, and shows what
// came of it. Without this the button posts its form, and the page comes back when the job is done.
import { call, tell } from "./api.js";

for (const form of document.querySelectorAll("form[data-run]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = form.dataset.run;
    const said = document.getElementById(`said-${id}`);
    const button = form.querySelector("button");
    const begun = Date.now();
    const show = () => { said.textContent = `Running for ${Math.round((Date.now() - begun) / 1000)} s…`; };
    button.disabled = true;
    tell(said, "Running…");
    const ticking = setInterval(show, 1000);
    try {
      await call("Job", "execute", { id });
      location.assign(`${location.pathname}?done=ran&id=${id}&at=${Date.now()}#job-${id}`);
    } catch (problem) {
      tell(said, problem.message, problem);
      button.disabled = false;
    } finally {
      clearInterval(ticking);
    }
  });
}
