// The explorer's form: updates the samples while it is filled in, sends the call and shows the answer. Without this the
// form still shows the request. Answers are set as text, never as HTML.

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

async function renderCall(form, signal) {
  const response = await fetch(form.action, {
    method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" }, signal,
  });
  const rendered = await response.json();
  if (response.status === 401) throw new LoggedOut(rendered.error);
  if (!response.ok) throw new Error(rendered.error);
  return rendered;
}

async function callApi(entity, action, params) {
  const response = await fetch("/civicrm/ajax/rest", {
    method: "POST",
    body: new URLSearchParams({ entity, action, json: JSON.stringify(params) }),
    headers: { "X-Requested-With": "XMLHttpRequest" },
  });
  const text = await response.text();
  if (response.status === 401) throw new LoggedOut("Your session has ended. Log in again, then repeat this.");
  try {
    return { status: response.status, value: JSON.parse(text), text: pretty(text) };
  } catch {
    return { status: response.status, value: null, text };
  }
}

// Indents the text itself: JSON.parse would round large numbers.
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

// A get answers at most `limit` rows (25 unless it says otherwise): where it was full, how many there are is asked for.
async function summary(answer, entity, action, params) {
  const value = answer.value;
  if (answer.status !== 200) return `HTTP ${answer.status}: the call was refused.`;
  if (value && value.is_error) return `Error: ${value.error_message}`;
  if (!value || value.count === undefined) return "Answered.";
  const rows = (count) => `${count.toLocaleString("en")} ${count === 1 ? "row" : "rows"}`;
  const { options, sequential, ...filters } = params;
  const limit = options?.limit ?? 25;
  if (action !== "get" || Number(limit) === 0 || value.count < limit) return `Answered: ${rows(value.count)}.`;
  const all = Number((await callApi(entity, "getcount", filters).catch(() => null))?.value?.result ?? NaN);
  return all >= value.count ? `Answered: ${value.count.toLocaleString("en")} of ${rows(all)}.` : `Answered: ${rows(value.count)}; the limit may have left out others.`;
}

function showError(text, lostSession = false) {
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

function updateSamples(form) {
  let waiting = 0;
  let running = new AbortController();
  const update = async () => {
    running.abort();
    running = new AbortController();
    try {
      const rendered = await renderCall(form, running.signal);
      for (const [name, text] of Object.entries(rendered.samples)) find(`sample-${name}`).textContent = text;
      showError("");
    } catch (problem) {
      if (problem.name !== "AbortError") showError(problem.message, problem instanceof LoggedOut);
    }
  };
  form.addEventListener("input", (event) => {
    if (event.target.id === "search") return;
    clearTimeout(waiting);
    waiting = setTimeout(update, 200);
  });
  return update;
}

function sendOnSubmit(form, update) {
  const { entity, action } = form.dataset;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ("changes" in form.dataset && !confirm(`${entity}.${action} may change data. Send it?`)) return;
    const button = find("try");
    button.disabled = true;
    find("status").textContent = "Sending…";
    try {
      const [rendered] = await Promise.all([renderCall(form), update()]);
      const answer = await callApi(entity, action, rendered.params);
      find("status").textContent = await summary(answer, entity, action, rendered.params);
      find("answer").textContent = answer.text;
      find("answer").hidden = false;
      find("status").scrollIntoView({ block: "nearest" });
    } catch (problem) {
      find("status").textContent = "Not sent.";
      showError(problem.message, problem instanceof LoggedOut);
    } finally {
      button.disabled = false;
    }
  });
}

// Option lists of the site are fetched when a field is first focused.
function offerOptions(form) {
  for (const input of form.querySelectorAll("[data-options]")) {
    input.addEventListener("focus", async () => {
      const asked = { field: input.dataset.options, sequential: 1 };
      const answer = await callApi(form.dataset.entity, "getoptions", asked).catch(() => null);
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
  sendOnSubmit(form, updateSamples(form));
  offerOptions(form);
  offerLanguages();
  offerSearch();
}
