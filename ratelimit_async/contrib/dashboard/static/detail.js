// One key: plots of its limits, its queue, its dead letters.

import { $, chipsOf, count, duration, el, keep, number, percent, setChips, setText, show, titleOf, wordsOf } from "./dom.js";
import { Plot, level } from "./plot.js";

class LimitCard {
  constructor(limit) {
    this.limit = limit.limit;
    this.value = el("span", "big");
    this.note = el("span", "note");
    this.reset = el("span", "note");
    this.plot = new Plot(limit.limit, percent, 100);
    this.node = el("section", "card pad limit",
      el("div", "limit-head", el("h2", "", limit.limit), this.reset),
      el("p", "figures", this.value, this.note),
      this.plot.node);
  }

  update(limit, ages, values, span, widest) {
    const full = (100 * limit.used) / limit.most;
    setText(this.value, percent(full));
    this.node.dataset.level = level(full);
    setText(this.note, `${number(limit.used)} of ${number(limit.most)} ${wordsOf(limit)}`);
    setText(this.reset, limit.used ? `clears in ${duration(limit.reset_after)}` : "unused");
    this.plot.update(ages.map((age, i) => ({ age, value: values[i] })), span, level(full), widest);
  }
}

class Letter {
  constructor(letter, act) {
    this.error = el("p", "error");
    this.meta = el("p", "note");
    this.call = el("pre", "call");
    const arguments_ = el("details", "", el("summary", "", "Arguments"), this.call);
    this.requeue = el("button", "", "Requeue…");
    this.remove = el("button", "", "Delete…");
    this.requeue.type = this.remove.type = "button";
    this.requeue.setAttribute("aria-label", `Requeue ${letter.task}, ${letter.id}`);
    this.remove.setAttribute("aria-label", `Delete ${letter.task}, ${letter.id}`);
    this.requeue.addEventListener("click", () => act("requeue", letter));
    this.remove.addEventListener("click", () => act("delete", letter));
    this.buttons = el("div", "buttons", this.requeue, this.remove);
    this.node = el("li", "letter",
      el("div", "letter-text", el("h3", "", el("bdi", "", letter.task)), this.error, this.meta, arguments_), this.buttons);
    setText(this.error, letter.error);
    setText(this.call, letter.call);
  }

  update(letter, readOnly) {
    const died = new Date(letter.died_at * 1000);
    setText(this.meta, `${count(letter.attempts, "attempt")}, died on ${died.toLocaleString()}`);
    show(this.buttons, !readOnly);
  }
}

export class Detail {
  constructor(act) {
    this.act = act;
    this.limits = [];
    this.letters = new Map();
    this.id = null;
    this.depth = new Plot("Queue", (value) => number(value));
    $("queue-plot").append(this.depth.node);
    $("do-pause").addEventListener("click", () => this.act("pause", this.key));
    $("do-resume").addEventListener("click", () => this.act("resume", this.key, this.namePaused));
    $("do-reset").addEventListener("click", () => this.act("reset", this.key));
  }

  open(id) {
    if (this.id === id) return;
    this.id = id;
    this.key = null;
    this.limits = [];
    this.letters.clear();
    for (const part of ["detail-name", "detail-by", "facts", "waiting-more", "letters-more"]) setText($(part), "");
    for (const part of ["queue-depth", "queue-oldest", "queue-estimate"]) setText($(part), "–");
    for (const part of ["detail-limits", "waiting", "letters", "queue-levels"]) $(part).replaceChildren();
    setChips($("detail-state"), []);
    show($("detail-actions"), false);
    show($("detail-problem"), false);
    this.depth.points = [];
    this.depth.draw();
  }

  get address() {
    return `api/key?key=${encodeURIComponent(this.id)}`;
  }

  update(told) {
    const key = (this.key = told.key);
    setText($("detail-name"), key.name);
    setText($("detail-by"), key.by ?? "");
    document.title = `${titleOf(key)} · Limits`;
    show($("detail-problem"), Boolean(key.problem));
    setText($("detail-problem"), key.problem);
    setChips($("detail-state"), chipsOf(key).filter(([, kind]) => kind !== "dead"));
    if (!told.history) return;
    this.namePaused = told.name_paused && key.by !== null;
    show($("detail-actions"), !told.read_only);
    show($("do-pause"), !key.paused || key.resumes_in !== null);
    show($("do-resume"), key.paused);
    // Keys that were read in turns have a look every so often only.
    const widest = Math.max(4 * told.interval, 30);
    this.updateLimits(key.limits, told.history, told.window, widest);
    this.updateQueue(key, told, widest);
    this.updateLetters(key, told);
    const tasks = told.tasks;
    const facts = [told.driven ? "A process grants for this key." : "No process has to grant for this key now."];
    if (tasks.workers) {
      facts.push(`Tasks: ${number(tasks.running)} running, ${number(tasks.delayed)} to be tried again, ` +
        `${number(tasks.parked)} that no process has; ${count(tasks.workers, "worker")}.`);
    }
    const since = new Date(Date.now() - 1000 * (told.history.ages[0] ?? 0)).toLocaleTimeString();
    facts.push(`Seen since ${since}: this process keeps 10 minutes, of the time in which a page was open.`);
    setText($("facts"), facts.join(" "));
  }

  updateLimits(limits, history, span, widest) {
    if (limits.map((limit) => limit.limit).join() !== this.limits.map((card) => card.limit).join()) {
      this.limits = limits.map((limit) => new LimitCard(limit));
      $("detail-limits").replaceChildren(...this.limits.map((card) => card.node));
    }
    limits.forEach((limit, i) => this.limits[i].update(limit, history.ages, history.limits[i], span, widest));
  }

  updateQueue(key, told, widest) {
    setText($("queue-depth"), number(key.depth));
    setText($("queue-oldest"), key.depth ? duration(key.oldest) : "–");
    setText($("queue-estimate"), told.estimated_wait ? duration(told.estimated_wait) : key.paused ? "until resumed" : "not at all");
    const most = Math.max(1, ...key.depths);
    const bars = $("queue-levels");
    while (bars.children.length > key.depths.length) bars.lastElementChild.remove();
    while (bars.children.length < key.depths.length) {
      bars.append(el("div", "level", el("span", "level-name"), el("span", "level-bar", el("span", "level-fill")), el("span", "level-number")));
    }
    key.depths.forEach((depth, i) => {
      const [name, bar, value] = bars.children[i].children;
      setText(name, `Priority ${i}${i ? "" : ", first"}`);
      bar.firstElementChild.style.width = `${(100 * depth) / most}%`;
      setText(value, number(depth));
    });
    const { ages, depth } = told.history;
    this.depth.update(ages.map((age, i) => ({ age, value: depth[i] })), told.window, "good", widest);
    const body = $("waiting");
    while (body.children.length > told.waiting.length) body.lastElementChild.remove();
    while (body.children.length < told.waiting.length) {
      body.append(el("tr", "", el("td", "number"), el("td"), el("td", "number"), el("td", "id")));
    }
    told.waiting.forEach((one, i) => {
      [number(one.position), String(one.priority), duration(one.age), one.id]
        .forEach((text, column) => setText(body.children[i].children[column], text));
    });
    show($("waiting-empty"), told.waiting.length === 0);
    const left = key.depth - told.waiting.length;
    setText($("waiting-more"), told.waiting.length >= told.most_waiting && left > 0 ? `and ${number(left)} more` : "");
  }

  updateLetters(key, told) {
    const known = new Map();
    for (const letter of told.letters) {
      const one = this.letters.get(letter.id) ?? new Letter(letter, (action, about) => this.act(action, this.key, about));
      one.update(letter, told.read_only);
      known.set(letter.id, one);
    }
    this.letters = known;
    keep($("letters"), [...known.values()].map((one) => one.node));
    show($("letters-empty"), told.letters.length === 0);
    const left = key.dead - told.letters.length;
    setText($("letters-more"), told.letters.length >= told.most_letters && left > 0
      ? `and ${number(left)} more, which show when these are gone` : "");
  }
}
