// The status pages: follow what changes by server-sent events, and the buttons, each of which makes the one API call it
// names. What the events carry is HTML that the server made and escaped; nothing is worked out here.
import { LoggedOut, call, confirmIn, tell } from "./api.js";

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

// Put a part in its place. Who stands on a link or button in it stays there.
function replace({ name, mark, html }) {
  const part = live.querySelector(`[data-part="${CSS.escape(name)}"]`);
  if (!part || part.dataset.mark === mark) return;
  const inside = part.contains(document.activeElement) ? document.activeElement : null;
  const which = inside ? [...part.querySelectorAll("a, button, [tabindex]")].indexOf(inside) : -1;
  const scrolled = [...part.querySelectorAll(".log, .scroll")].map((one) => [one.scrollTop, one.scrollLeft]);
  part.innerHTML = html;
  part.dataset.mark = mark;
  [...part.querySelectorAll(".log, .scroll")].forEach((one, place) => {
    if (scrolled[place]) [one.scrollTop, one.scrollLeft] = scrolled[place];
  });
  if (which >= 0) (part.querySelectorAll("a, button, [tabindex]")[which] ?? find("main")).focus({ preventScroll: true });
}

function offline(text, problem = null) {
  const line = find("line");
  if (text || line.dataset.offline) tell(line, text, problem);
  if (text) line.dataset.offline = "yes"; else delete line.dataset.offline;
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
  stream.addEventListener("say", (event) => { find("spoken").textContent = JSON.parse(event.data); });
  stream.addEventListener("over", (event) => {
    stop();
    offline(JSON.parse(event.data), new LoggedOut());
  });
  stream.addEventListener("gone", () => location.reload());
  stream.addEventListener("error", lost);
}

// The stream ended or was refused. Find out why before saying anything, and try again.
async function lost() {
  stop();
  try {
    await call("Mailchimpsync", "getprogress");
    retrying = setTimeout(follow, RETRY_MS / 5);
  } catch (problem) {
    const isOver = problem instanceof LoggedOut;
    offline(isOver ? problem.message : "The server does not answer. What you see may be old; this page tries again by itself.", problem);
    if (!isOver) retrying = setTimeout(lost, RETRY_MS);
  }
}

if (live) {
  follow();
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : follow()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
}

// ---- the buttons ----

function chosen(form) {
  const params = {};
  if (form.ever.checked) params.since = "ever";
  else if (form.since.value) params.since = form.since.value.replace("T", " ");
  if (form.hold.checked) params.stop_on = "readyToSubmitUpdates";
  return params;
}

// A sync may take hours: it is started and followed by the stream, the answer is only looked at when it comes.
async function sync(form, params) {
  const line = find("line");
  const buttons = form.querySelectorAll("button");
  for (const one of buttons) one.disabled = true;
  tell(line, "Started. How far it is stands under “Steps”; you may leave this page, it goes on.");
  try {
    const asked = { group_id: form.dataset.group, max_time: 0, ...params };
    const answer = await call("Mailchimpsync", "fetchandreconcile", asked, { keepalive: true });
    const [done] = Object.values(answer.values);
    tell(line, done?.status.locks.fetchAndReconcile === "busy"
      ? "Somebody else syncs this audience just now, so nothing was started. Its progress stands under “Steps”."
      : "The sync has done its part. “How it stands” says whether anything is still on its way.");
  } catch (problem) {
    tell(line, problem.message, problem);
  } finally {
    for (const one of buttons) one.disabled = false;
  }
}

const form = find("sync");
if (form) {
  const words = find("chosen");
  form.addEventListener("input", () => {
    form.since.disabled = form.ever.checked;
    const params = Object.entries({ group_id: form.dataset.group, max_time: 0, ...chosen(form) });
    words.textContent = `Mailchimpsync.fetchandreconcile ${params.map(([name, value]) => `${name}=${value}`).join(" ")}`;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sync(form, event.submitter?.value === "chosen" ? chosen(form) : {});
  });
  find("abort").addEventListener("click", async () => {
    if (!await confirmIn(find("abort-dialog"))) return;
    const line = find("line");
    tell(line, "Aborting…");
    try {
      await call("Mailchimpsync", "abortsync", { group_id: form.dataset.group });
      tell(line, "Aborted. The next sync begins anew.");
    } catch (problem) {
      tell(line, problem.message, problem);
    }
  });
}
