// Config: a key is checked with Mailchimp while one watches. Without this the form still posts.
import { Refused, call, tell } from "./api.js";
import "./forms.js";

const find = (id) => document.getElementById(id);

// Ticks a line of text with the seconds it takes; returns what stops it.
function ticking(element, words) {
  const begun = Date.now();
  const line = document.createElement("p");
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", words);
  const show = () => { line.textContent = `${words} ${Math.round((Date.now() - begun) / 1000)} s`; };
  show();
  element.hidden = false;
  element.classList.remove("bad");
  element.classList.add("busy");
  element.replaceChildren(line, bar);
  const timer = setInterval(show, 1000);
  return () => clearInterval(timer);
}

function found(account) {
  const names = Object.values(account.audiences).map((one) => one.name);
  const many = names.length === 1 ? "1 audience" : `${names.length} audiences`;
  return `${account.account_name}: ${many}${names.length ? ` (${names.slice(0, 8).join(", ")}${names.length > 8 ? "…" : ""})` : ""}`;
}

const adding = find("add");
if (adding) {
  adding.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = find("adding");
    const button = adding.querySelector("button");
    const key = adding.elements.mailchimp_key.value.trim();
    button.disabled = true;
    let stop = ticking(said, "Asking Mailchimp whose key this is, and for its audiences, interests and webhooks…");
    try {
      const answer = await call("Mailchimpsync", "fetchaccountinfo", { api_key: key });
      stop();
      stop = ticking(said, `Found ${found(answer.values)}. Saving…`);
      adding.submit();
    } catch (problem) {
      stop();
      said.classList.remove("busy");
      tell(said, problem instanceof Refused ? `${problem.message} Nothing was saved: check the key, then try again.` : problem.message, problem);
      button.disabled = false;
      adding.elements.mailchimp_key.focus();
    }
  });
}
