// Polls while the page is visible, says how things are, and asks before it acts.

import { $, count, duration, el, setText, show, titleOf } from "./dom.js";
import { Detail } from "./detail.js";
import { List } from "./list.js";

const PATIENCE = 10_000;
let interval = 2_000;
let csrf = "";
let timer;
let asked = 0;
let failures = 0;
let away = null;

const list = new List(() => poll());
const detail = new Detail(act);

function keyOfAddress() {
  const [, id] = location.hash.match(/^#\/key\/(.+)$/) ?? [];
  try {
    return id ? decodeURIComponent(id) : null;
  } catch {
    return null;
  }
}

function route() {
  const id = keyOfAddress();
  const before = $("detail").hidden;
  show($("list"), id === null);
  show($("detail"), id !== null);
  if (id === null) {
    document.title = "Limits";
    if (!before && detail.id) list.rows.get(detail.id)?.link.focus();
  } else {
    detail.open(id);
    scrollTo(0, 0);
    $("detail-title").focus({ preventScroll: true });
  }
  poll();
}

async function poll() {
  clearTimeout(timer);
  const turn = ++asked;
  const view = keyOfAddress() === null ? list : detail;
  try {
    const answer = await fetch(view.address, { signal: AbortSignal.timeout(PATIENCE), headers: { Accept: "application/json" } });
    if (answer.status === 401) return location.reload();
    const told = await answer.json();
    // Somebody has clicked meanwhile: a later answer is on its way.
    if (turn !== asked) return;
    if (!answer.ok) throw new Error(told.error);
    failures = 0;
    interval = Math.max(told.interval * 1000, 500);
    csrf = told.csrf;
    tellHealth(told);
    view.update(told);
  } catch (error) {
    if (turn !== asked) return;
    failures += 1;
    const reason = error instanceof TypeError || error.name === "TimeoutError" ? "The server does not answer" : error.message;
    // One failure is no news.
    if (failures > 1 || !(error instanceof TypeError)) tellTrouble(`${reason}`, "What is shown is what was last seen; this page tries again by itself.");
  }
  if (turn === asked && !document.hidden) timer = setTimeout(poll, Math.min(interval * 2 ** Math.max(failures - 1, 0), Math.max(interval, 8_000)));
}

function tellHealth(told) {
  show($("mode"), told.read_only);
  show($("sign-out"), told.sign_out);
  const health = told.health;
  if (health?.away !== null && health !== null) {
    away ??= new Date(Date.now() - 1000 * health.away).toLocaleTimeString();
    return tellTrouble(`Redis is away since ${away}`, `What is shown was seen before; this page goes on by itself. ${health.error}`);
  }
  away = null;
  show($("banner"), false);
  document.body.classList.remove("stale");
  if (health === null) return;
  $("health").dataset.state = health.ok ? "good" : "warn";
  const latency = health.latency < 0.01 ? `${(health.latency * 1000).toFixed(1)} ms` : duration(health.latency);
  setText($("health-text"), health.ok ? `Redis ${latency}` : health.error);
  setText($("health-processes"), health.ok ? `· ${count(health.processes, "process", "processes")}` : "");
  $("health").title = health.address;
}

function tellTrouble(what, why) {
  setText($("banner-what"), what);
  setText($("banner-why"), why);
  show($("banner"), true);
  document.body.classList.add("stale");
  $("health").dataset.state = "bad";
  setText($("health-text"), "Not up to date");
  setText($("health-processes"), "");
}

// ---- acting ----

const QUESTIONS = {
  pause: (title, key) => [
    `Pause ${title}?`,
    key.by === null ? "Hits on this name and all its subjects are denied, in every process, and requests wait. What runs goes on."
      : "Hits of this subject are denied, in every process, and requests wait. What runs goes on.",
    "Pause",
  ],
  resume: (title) => [`Resume ${title}?`, "Hits pass again, and those who wait go on, in every process.", "Resume"],
  reset: (title, key) => [
    `Reset ${title}?`,
    `What its limits have counted${key.by === null ? ", without a subject," : ""} is forgotten: those who wait may pass at once, and the upstream may see more than the limit.`,
    "Reset",
  ],
  requeue: (title, key, letter) => ["Requeue this dead letter?", `${letter.task} goes back into the queue of ${title} and is run again, with all its attempts before it.`, "Requeue"],
  delete: (title, key, letter) => ["Delete this dead letter?", `${letter.task}, with its arguments, is gone for good.`, "Delete"],
};

function confirmed(title, text, verb, { duration: asksDuration, danger }) {
  const dialog = $("confirm");
  setText($("confirm-title"), title);
  setText($("confirm-text"), text);
  setText($("confirm-yes"), verb);
  $("confirm-yes").classList.toggle("danger", danger);
  show($("confirm-duration"), asksDuration);
  $("confirm-seconds").value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  (asksDuration ? $("confirm-seconds") : $("confirm-no")).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(action, key, about) {
  let target = { ...key };
  if (action === "resume" && about) {
    // The whole name is paused: that is what has to end.
    target = { id: `${key.id.split(":")[0]}:`, name: key.name, by: null };
  }
  const letter = action === "requeue" || action === "delete" ? about : null;
  const [title, text, verb] = QUESTIONS[action](titleOf(target), target, letter);
  const how = { duration: action === "pause", danger: action === "delete" || action === "reset" };
  if (!(await confirmed(title, text, verb, how))) return;
  const seconds = $("confirm-seconds").value;
  const body = { action, key: target.id };
  if (action === "pause" && seconds) body.seconds = Number(seconds);
  if (letter) body.letter = letter.id;
  try {
    const answer = await fetch("api/actions", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (answer.ok) toast(`${{ pause: "Paused", resume: "Resumed", reset: "Reset", requeue: "Requeued", delete: "Deleted" }[action]} ${letter ? letter.task : titleOf(target)}`);
    else toast((await answer.json()).error, true);
  } catch {
    toast("The server does not answer; whether that was done is not known.", true);
  }
  poll();
}

let toasting;
function toast(text, bad = false) {
  clearTimeout(toasting);
  $("toast").replaceChildren(el("span", bad ? "bad" : "", text));
  toasting = setTimeout(() => $("toast").replaceChildren(), 6_000);
}

$("sign-out").addEventListener("click", async () => {
  await fetch("logout", { method: "POST" }).catch(() => {});
  location.reload();
});
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("content").focus();
});
if (location.hash.startsWith("#token=")) history.replaceState(null, "", location.pathname);
route();
