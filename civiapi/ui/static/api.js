// APIv3 calls from a page, as the visitor, and what to say when one fails. Every page's script may use this.

export class LoggedOut extends Error {}
export class Refused extends Error {}

// The whole answer of an API call. Throws LoggedOut, or Refused in the API's words.
export async function call(entity, action, params = {}, how = {}) {
  let response;
  try {
    response = await fetch("/civicrm/ajax/rest", {
      method: "POST",
      body: new URLSearchParams({ entity, action, json: JSON.stringify(params) }),
      headers: { "X-Requested-With": "XMLHttpRequest" },
      ...how,
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Error("The server cannot be reached. Check your connection, then try again.");
  }
  if (response.status === 401) throw new LoggedOut("Your session is over. Log in again and repeat this.");
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`The server answered with HTTP ${response.status}. Try again; its log says more.`);
  }
  if (answer && answer.is_error) throw new Refused(answer.error_message);
  return answer;
}

// Words into an element that is announced to screen readers, with the way to the log-in where that is the cure.
export function tell(element, text, problem = null) {
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

// Ask in a dialog of the page (an element `dialog` with a form method=dialog); whether it was answered by `value="yes"`.
export function confirmIn(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}
