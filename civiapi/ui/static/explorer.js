// The explorer's form: words the call as it is filled in, sends it, shows the answer. Without this the pages still
// read, and the form still words the request. What is shown is set as text, never as HTML.

const find = (id) => document.getElementById(id);

class LoggedOut extends Error {}

function offerActions(picker) {
  const actions = JSON.parse(find("actions").textContent);
  const entity = picker.elements.entity;
  const action = picker.elements.action;
  const offer = () => {
    const wanted = action.value;
    action.replaceChildren(...actions[entity.value].map((name) => new Option(name, name, false, name === wanted)));
  };
  entity.addEventListener("change", offer);
  offer();
}

async function wordCall(form, signal) {
  const response = await fetch(form.action, {
    method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" }, signal,
  });
  const words = await response.json();
  if (response.status === 401) throw new LoggedOut(words.error);
  if (!response.ok) throw new Error(words.error);
  return words;
}

async function askApi(entity, action, params) {
  const response = await fetch("/civicrm/ajax/rest", {
    method: "POST",
    body: new URLSearchParams({ entity, action, json: JSON.stringify(params) }),
    headers: { "X-Requested-With": "XMLHttpRequest" },
  });
  const text = await response.text();
  if (response.status === 401) throw new LoggedOut("Your session is over. Log in again and repeat this.");
  try {
    return { status: response.status, value: JSON.parse(text), text: pretty(text) };
  } catch {
    return { status: response.status, value: null, text };
  }
}

// Laid out without passing numbers through JavaScript's, which would round the long ones.
function pretty(text) {
  let depth = 0;
  return text.replace(/"(?:[^"\\]+|\\.)*"|[{[]\s*[}\]]|[{}[\],:]/g, (part) => {
    const line = () => "\n" + "  ".repeat(depth);
    if (part === "{" || part === "[") { depth += 1; return part + line(); }
    if (part === "}" || part === "]") { depth -= 1; return line() + part; }
    if (part === ",") return part + line();
    return part === ":" ? ": " : part;
  });
}

function summary(answer) {
  const value = answer.value;
  if (answer.status !== 200) return `HTTP ${answer.status}: the call was not taken.`;
  if (value && value.is_error) return `Error: ${value.error_message}`;
  return value && value.count !== undefined ? `Answered: ${value.count} in all.` : "Answered.";
}

function say(text, lostSession = false) {
  const wrong = find("wrong");
  wrong.hidden = !text;
  wrong.textContent = text;
  if (text) wrong.scrollIntoView({ block: "nearest" });
  if (lostSession) {
    const link = document.createElement("a");
    link.href = `/civicrm/login?next=${encodeURIComponent(location.pathname)}`;
    link.textContent = "Log in";
    wrong.append(" ", link);
  }
}

function keepWorded(form) {
  let waiting = 0;
  let running = new AbortController();
  const word = async () => {
    running.abort();
    running = new AbortController();
    try {
      const words = await wordCall(form, running.signal);
      for (const [name, text] of Object.entries(words.samples)) find(`sample-${name}`).textContent = text;
      say("");
    } catch (problem) {
      if (problem.name !== "AbortError") say(problem.message, problem instanceof LoggedOut);
    }
  };
  form.addEventListener("input", (event) => {
    if (event.target.id === "search") return;
    clearTimeout(waiting);
    waiting = setTimeout(word, 200);
  });
  return word;
}

function tryOnSubmit(form, word) {
  const { entity, action } = form.dataset;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ("changes" in form.dataset && !confirm(`${entity}.${action} may change data. Send it?`)) return;
    const button = find("try");
    button.disabled = true;
    find("status").textContent = "Asking…";
    try {
      const [words] = await Promise.all([wordCall(form), word()]);
      const answer = await askApi(entity, action, words.params);
      find("status").textContent = summary(answer);
      find("answer").textContent = answer.text;
      find("answer").hidden = false;
      find("status").scrollIntoView({ block: "nearest" });
    } catch (problem) {
      find("status").textContent = "Not sent.";
      say(problem.message, problem instanceof LoggedOut);
    } finally {
      button.disabled = false;
    }
  });
}

// Lists that a site keeps itself come from the API when somebody first goes there.
function offerOptions(form) {
  for (const input of form.querySelectorAll("[data-options]")) {
    input.addEventListener("focus", async () => {
      const asked = { field: input.dataset.options, sequential: 1 };
      const answer = await askApi(form.dataset.entity, "getoptions", asked).catch(() => null);
      const values = answer?.value?.values;
      if (!Array.isArray(values)) return;
      const list = document.createElement("datalist");
      list.id = `list-${input.dataset.options}`;
      list.append(...values.map((one) => new Option(one.value, one.key)));
      input.after(list);
      input.setAttribute("list", list.id);
    }, { once: true });
  }
}

function offerLanguages() {
  const languages = find("languages");
  const show = () => {
    const chosen = languages.querySelector(":checked").value;
    for (const sample of document.querySelectorAll(".sample")) sample.hidden = sample.dataset.language !== chosen;
  };
  languages.hidden = false;
  languages.addEventListener("change", show);
  show();
  const copy = find("copy");
  copy.hidden = !navigator.clipboard;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.querySelector(".sample:not([hidden]) pre").textContent);
    copy.textContent = "Copied";
  });
}

function offerSearch() {
  const search = find("search");
  if (!search) return;
  find("search-field").hidden = false;
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    for (const one of document.querySelectorAll(".parameter")) one.hidden = !one.dataset.name.includes(wanted);
  });
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
}

const picker = find("picker");
if (picker) offerActions(picker);
const form = find("call");
if (form) {
  tryOnSubmit(form, keepWorded(form));
  offerOptions(form);
  offerLanguages();
  offerSearch();
}
