// The status pages: live updates by server-sent events, whose HTML the server has escaped, and the buttons, each of which
// makes the API call shown beside it.
import { LoggedOut, call, confirmIn, showMessage, showProblem } from "./api.js";

const find = (id) => document.getElementById(id);
const live = document.querySelector("[data-events]");
const RETRY_MS = 10_000;
let stream = null;
let retrying = 0;

function address() {
  const url = new URL(live.dataset.events, location.href);
  for (const part of live.querySelectorAll("[data-part]")) {
    url.searchParams.append("have", `${part.dataset.part}:${part.dataset.mark}`);
  }
  return url;
}

// Replace a part; keep focus and scroll positions.
function replace({ name, mark, html }) {
  const part = live.querySelector(`[data-part="${CSS.escape(name)}"]`);
  if (!part || part.dataset.mark === mark) return;
  const inside = part.contains(document.activeElement) ? document.activeElement : null;
  const which = inside ? [...part.querySelectorAll("a, button, summary, [tabindex]")].indexOf(inside) : -1;
  const scrolled = [...part.querySelectorAll(".log, .scroll")].map((one) => [one.scrollTop, one.scrollLeft]);
  const opened = [...part.querySelectorAll("details")].map((one) => one.open && one.querySelector("summary").textContent);
  part.innerHTML = html;
  part.dataset.mark = mark;
  for (const one of part.querySelectorAll("details")) one.open = opened.includes(one.querySelector("summary").textContent);
  [...part.querySelectorAll(".log, .scroll")].forEach((one, place) => {
    if (scrolled[place]) [one.scrollTop, one.scrollLeft] = scrolled[place];
  });
  if (which >= 0) (part.querySelectorAll("a, button, summary, [tabindex]")[which] ?? find("main")).focus({ preventScroll: true });
}

function offline(text, problem = null) {
  const message = find("message");
  if (text || message.dataset.offline) showMessage(message, text, problem);
  if (text) message.dataset.offline = "yes"; else delete message.dataset.offline;
}

function stop() {
  clearTimeout(retrying);
  stream?.close();
  stream = null;
}

function follow() {
  stop();
  stream = new EventSource(address());
  stream.addEventListener("open", () => offline(""));
  stream.addEventListener("part", (event) => replace(JSON.parse(event.data)));
  stream.addEventListener("announce", (event) => { find("announcement").textContent = JSON.parse(event.data); });
  stream.addEventListener("session-ended", (event) => {
    stop();
    offline(JSON.parse(event.data), new LoggedOut());
  });
  stream.addEventListener("removed", () => location.reload());
  stream.addEventListener("error", reconnect);
}

// The stream ended or was refused. Find out why before showing a message, and try again.
async function reconnect() {
  stop();
  try {
    await call("Mailchimpsync", "getprogress");
    retrying = setTimeout(follow, RETRY_MS / 5);
  } catch (problem) {
    const isOver = problem instanceof LoggedOut;
    offline(isOver ? problem.message : "The server does not respond. The page may be out of date; it retries automatically.", problem);
    if (!isOver) retrying = setTimeout(reconnect, RETRY_MS);
  }
}

if (live) {
  follow();
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : follow()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
}

// ---- the buttons ----

function options(form) {
  const params = {};
  if (form.ever.checked) params.since = "ever";
  else if (form.since.value) params.since = form.since.value.replace("T", " ");
  if (form.hold.checked) params.stop_on = "readyToSubmitUpdates";
  return params;
}

// A sync may take hours: the stream shows its progress, and the answer is handled when it arrives.
async function sync(form, params) {
  const message = find("message");
  const buttons = form.querySelectorAll("button");
  for (const one of buttons) one.disabled = true;
  showMessage(message, "Started. Progress is shown under “Steps”. You may leave this page; the sync continues.");
  try {
    const asked = { group_id: form.dataset.group, max_time: 0, ...params };
    const answer = await call("Mailchimpsync", "fetchandreconcile", asked, { keepalive: true });
    const [done] = Object.values(answer.values);
    showMessage(message, done?.status.locks.fetchAndReconcile === "busy"
      ? "A sync of this audience is already running, so nothing was started. Its progress is shown under “Steps”."
      : "The sync has finished. “Status” shows whether updates are still in flight.");
  } catch (problem) {
    showProblem(message, "The sync has stopped. “Status” says why, and what to do.", problem, "Mailchimpsync.fetchandreconcile");
  } finally {
    for (const one of buttons) one.disabled = false;
  }
}

const form = find("sync");
if (form) {
  const shownCall = find("options");
  form.addEventListener("input", () => {
    form.since.disabled = form.ever.checked;
    const params = Object.entries({ group_id: form.dataset.group, max_time: 0, ...options(form) });
    shownCall.textContent = `Mailchimpsync.fetchandreconcile ${params.map(([name, value]) => `${name}=${value}`).join(" ")}`;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sync(form, event.submitter?.value === "options" ? options(form) : {});
  });
  // Abort is in a live part, which is replaced.
  live.addEventListener("click", async (event) => {
    if (!event.target.closest("[data-abort]") || !await confirmIn(find("abort-dialog"))) return;
    const message = find("message");
    showMessage(message, "Aborting…");
    try {
      await call("Mailchimpsync", "abortsync", { group_id: form.dataset.group });
      showMessage(message, "Aborted. The next sync starts from the beginning.");
    } catch (problem) {
      showProblem(message, "The sync could not be aborted.", problem, "Mailchimpsync.abortsync");
    }
  });
}
