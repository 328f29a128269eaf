// APIv3 calls from a page, made as the user, and messages when one fails. Shared by the scripts of all pages.

export class LoggedOut extends Error {}
export class Refused extends Error {}

// The answer of an API call. Throws LoggedOut, or Refused with the error message of the API.
export async function call(entity, action, params = {}, options = {}) {
  let response;
  try {
    response = await fetch("/civicrm/ajax/rest", {
      method: "POST",
      body: new URLSearchParams({ entity, action, json: JSON.stringify(params) }),
      headers: { "X-Requested-With": "XMLHttpRequest" },
      ...options,
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Error("The server cannot be reached. Check your connection, then try again.");
  }
  if (response.status === 401) throw new LoggedOut("Your session has ended. Log in again, then repeat this.");
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`The server answered with HTTP ${response.status}. Try again; the server log has the details.`);
  }
  if (answer && answer.is_error) throw new Refused(answer.error_message);
  return answer;
}

// Show a message in an element that screen readers announce; with a link to the log-in if the session has ended.
export function showMessage(element, text, problem = null) {
  element.hidden = !text;
  element.textContent = text;
  element.classList.toggle("bad", problem !== null);
  if (problem instanceof LoggedOut) {
    const link = document.createElement("a");
    link.href = `/civicrm/login?next=${encodeURIComponent(location.pathname + location.search)}`;
    link.textContent = "Log in";
    element.append(" ", link);
  }
  if (text) element.scrollIntoView({ block: "nearest" });
}

// What happened, in words for people; the text of the problem and the API call under "Details", to be copied.
export function showProblem(element, text, problem, apiCall) {
  if (!(problem instanceof Refused)) {
    showMessage(element, problem.message, problem);
    return;
  }
  showMessage(element, text, problem);
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Details";
  const technical = document.createElement("pre");
  technical.textContent = `${apiCall}: ${problem.message}`;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "quiet small";
  copy.dataset.copy = "";
  copy.textContent = "Copy";
  details.append(summary, technical, copy);
  element.append(details);
}

// "Copy" beside a technical text.
addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard?.writeText(button.parentElement.querySelector("pre").textContent);
  button.textContent = "Copied";
});

// Open a dialog of the page (a `dialog` with a form method=dialog); resolves to whether it was closed with `value="yes"`.
export function confirmIn(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}
