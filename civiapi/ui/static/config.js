// Config: checks a key with Mailchimp before it is saved, and shows the progress. Without this the form still posts.
import { Refused, call, showMessage } from "./api.js";
import "./forms.js";

const find = (id) => document.getElementById(id);

// Show a text with the seconds elapsed; returns a function that stops it.
function showProgress(element, text) {
  const startedAt = Date.now();
  const line = document.createElement("p");
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", text);
  const show = () => { line.textContent = `${text} ${Math.round((Date.now() - startedAt) / 1000)} s`; };
  show();
  element.hidden = false;
  element.classList.remove("bad");
  element.classList.add("busy");
  element.replaceChildren(line, bar);
  const timer = setInterval(show, 1000);
  return () => clearInterval(timer);
}

function describe(account) {
  const names = Object.values(account.audiences).map((one) => one.name);
  const count = names.length === 1 ? "1 audience" : `${names.length} audiences`;
  return `${account.account_name}: ${count}${names.length ? ` (${names.slice(0, 8).join(", ")}${names.length > 8 ? "…" : ""})` : ""}`;
}

const adding = find("add");
if (adding) {
  adding.addEventListener("submit", async (event) => {
    event.preventDefault();
    const status = find("adding");
    const button = adding.querySelector("button");
    const key = adding.elements.mailchimp_key.value.trim();
    button.disabled = true;
    let stop = showProgress(status, "Fetching account, audiences, interests and webhooks from Mailchimp…");
    try {
      const answer = await call("Mailchimpsync", "fetchaccountinfo", { api_key: key });
      stop();
      stop = showProgress(status, `Found ${describe(answer.values)}. Saving…`);
      adding.submit();
    } catch (problem) {
      stop();
      status.classList.remove("busy");
      showMessage(status, problem instanceof Refused ? `${problem.message} Nothing was saved. Check the key, then try again.` : problem.message, problem);
      button.disabled = false;
      adding.elements.mailchimp_key.focus();
    }
  });
}
