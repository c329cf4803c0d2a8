// Helpers. What users made (names, subjects, errors, arguments) only ever becomes text.

export const $ = (id) => document.getElementById(id);

export function el(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// Keeps one node per id, in the order given, and moves only those that are elsewhere.
export function keep(parent, nodes) {
  nodes.forEach((node, i) => {
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const number = (value) => whole.format(value);

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

export function duration(seconds) {
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${number(hours / 24)} days`;
}

// 99.9 % is not full yet.
export const percent = (value) => `${value < 100 ? Math.floor(value) : Math.round(value)} %`;

export function titleOf(key) {
  return key.by === null ? key.name : `${key.name} / ${key.by}`;
}

// What a limit is called beside its numbers: "per minute", "tokens per minute", "at once"; whole, where its burst differs.
export function wordsOf(limit) {
  if (limit.limit.includes(" burst ")) return limit.limit;
  const rest = limit.limit.replace(/^\d+ ?/, "").replace(/ (fixed_window|sliding_counter|token_bucket)\b/, "");
  return rest.endsWith("concurrent") ? rest.replace(/concurrent$/, "at once") : rest.replace("/", " per ").trim();
}

export function chip(text, kind) {
  return el("span", `chip ${kind}`, text);
}

export function chipsOf(row) {
  const chips = [];
  if (row.problem) chips.push(["not read", "bad"]);
  if (row.paused) chips.push([row.resumes_in === null ? "paused" : `paused, ${duration(row.resumes_in)} left`, "warn"]);
  if (row.limits?.some((limit) => limit.remaining === 0)) chips.push(["full", "bad"]);
  if (row.dead) chips.push([count(row.dead, "dead letter"), "dead"]);
  return chips;
}

// Chips are replaced only where they say something else, so that nothing flickers.
export function setChips(parent, chips) {
  const key = JSON.stringify(chips);
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...chips.map(([text, kind]) => chip(text, kind)));
}
