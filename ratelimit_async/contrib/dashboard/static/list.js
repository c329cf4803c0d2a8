// The list of keys: tiles, filters, rows and pages.

import { $, chipsOf, count, duration, el, keep, number, percent, setChips, setText, show, titleOf, wordsOf } from "./dom.js";
import { Sparkline, level } from "./plot.js";

const MOST_METERS = 3;
const EMPTY = {
  "": "Nothing yet: keys appear here as soon as somebody uses them.",
  full: "No limit is full.",
  waiting: "Nobody waits.",
  paused: "Nothing is paused.",
  dead: "There are no dead letters.",
};

class Meter {
  constructor() {
    this.words = el("span", "meter-words");
    this.value = el("span", "meter-value");
    this.fill = el("span", "meter-fill");
    this.bar = el("span", "meter-bar", this.fill);
    this.node = el("span", "meter", el("span", "meter-text", this.value, this.words), this.bar);
  }

  update(limit) {
    const full = (100 * limit.used) / limit.most;
    setText(this.value, `${number(limit.used)} of ${number(limit.most)}`);
    setText(this.words, wordsOf(limit));
    this.fill.style.width = `${Math.min(Math.max(full, 0), 100)}%`;
    this.node.dataset.level = level(full);
  }
}

class Row {
  constructor(id) {
    this.name = el("bdi", "name");
    this.subject = el("bdi", "subject");
    this.meters = el("span", "meters");
    this.spark = new Sparkline();
    this.depth = el("span", "depth");
    this.levels = el("span", "level-list");
    this.chips = el("span", "chips");
    this.link = el("a", "row",
      el("span", "cell key", this.name, this.subject),
      el("span", "cell used", this.meters),
      el("span", "cell trend", this.spark.node),
      el("span", "cell queue", this.depth, this.levels),
      el("span", "cell state", this.chips));
    this.link.href = `#/key/${encodeURIComponent(id)}`;
    this.node = el("li", "", this.link);
    this.meterList = [];
  }

  update(row, window) {
    setText(this.name, row.name);
    setText(this.subject, row.by ?? "");
    show(this.subject, row.by !== null);
    this.link.classList.toggle("stale", Boolean(row.problem));
    const limits = row.limits ?? [];
    const shown = limits.slice(0, MOST_METERS);
    while (this.meterList.length < shown.length) this.meterList.push(new Meter());
    this.meterList.length = shown.length;
    shown.forEach((limit, i) => this.meterList[i].update(limit));
    const nodes = this.meterList.map((meter) => meter.node);
    if (limits.length > MOST_METERS) nodes.push(el("span", "note", `and ${limits.length - MOST_METERS} more`));
    keep(this.meters, nodes);
    this.spark.update(row.peaks, window);
    setText(this.depth, row.depth ? `${number(row.depth)} waiting` : "–");
    this.depth.classList.toggle("some", Boolean(row.depth));
    this.depth.parentElement.classList.toggle("none", !row.depth);
    setText(this.levels, row.depth ? `${row.depths.map(number).join(" · ")}, oldest ${duration(row.oldest)}` : "");
    this.levels.title = row.depth ? row.depths.map((depth, i) => `priority ${i}: ${number(depth)}`).join(", ") : "";
    setChips(this.chips, chipsOf(row));
    this.link.setAttribute("aria-label", this.words(row));
    this.link.title = row.problem;
  }

  words(row) {
    const limits = (row.limits ?? []).map((limit) => `${percent((100 * limit.used) / limit.most)} of ${limit.limit}`);
    const waits = row.depth ? [`${number(row.depth)} waiting, the oldest for ${duration(row.oldest)}`] : [];
    return [titleOf(row), ...limits, ...waits, ...chipsOf(row).map(([text]) => text)].join(", ");
  }
}

export class List {
  constructor(changed) {
    this.rows = new Map();
    this.shown = "";
    this.page = 1;
    const again = () => {
      this.page = 1;
      changed();
    };
    for (const tile of document.querySelectorAll(".tile")) {
      tile.addEventListener("click", () => {
        this.shown = tile.dataset.show === this.shown ? "" : tile.dataset.show;
        this.press();
        again();
      });
    }
    let typing;
    $("search").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(again, 150);
    });
    $("tools").addEventListener("submit", (event) => event.preventDefault());
    $("name").addEventListener("change", again);
    $("order").addEventListener("change", again);
    $("previous").addEventListener("click", () => this.turn(-1, changed));
    $("next").addEventListener("click", () => this.turn(1, changed));
  }

  turn(by, changed) {
    this.page += by;
    changed();
  }

  press() {
    for (const tile of document.querySelectorAll(".tile")) {
      tile.setAttribute("aria-pressed", String(tile.dataset.show === this.shown));
    }
  }

  get address() {
    const query = new URLSearchParams({
      name: $("name").value,
      search: $("search").value.toWellFormed?.() ?? $("search").value,
      show: this.shown,
      order: $("order").value,
      page: this.page,
    });
    return `api/limits?${query}`;
  }

  update(told) {
    this.page = told.page;
    this.updateTiles(told.totals, told.names.length);
    this.updateNames(told.names);
    setText($("head-window"), `Fullness, last ${told.window === 60 ? "minute" : `${told.window / 60} minutes`}`);
    this.updateRows(told.rows, told.window);
    const filtered = this.shown || $("search").value || $("name").value;
    show($("empty"), told.rows.length === 0);
    setText($("empty"), this.shown || !filtered ? EMPTY[this.shown] : "No key is called so.");
    const partly = (this.shown || $("order").value) && told.totals.read < told.totals.keys;
    const unread = partly ? `, of the ${number(told.totals.read)} that are read; narrow the list to read others` : "";
    setText($("matching"), count(told.matching, "key") + unread);
    show($("pager-buttons"), told.pages > 1);
    setText($("page-number"), `${told.page} of ${number(told.pages)}`);
    $("previous").disabled = told.page <= 1;
    $("next").disabled = told.page >= told.pages;
  }

  updateTiles(totals, names) {
    setText($("total-keys"), number(totals.keys) + (totals.more ? "+" : ""));
    setText($("note-keys"), totals.read < totals.keys ? `${number(totals.read)} of them read` : `of ${count(names, "name")}`);
    setText($("total-full"), number(totals.full));
    setText($("note-full"), totals.full ? `of ${count(totals.read, "key")}` : "");
    setText($("total-waiting"), number(totals.depth));
    setText($("note-waiting"), totals.depth ? `oldest ${duration(totals.oldest)}` : "");
    setText($("total-paused"), number(totals.paused));
    setText($("note-paused"), totals.paused ? `of ${count(totals.read, "key")}` : "");
    setText($("total-dead"), number(totals.letters));
    setText($("note-dead"), totals.letters ? `in ${count(totals.dead, "key")}` : "");
    for (const [id, bad] of [["full", totals.full], ["paused", totals.paused], ["dead", totals.letters]]) {
      $(`total-${id}`).classList.toggle("some", bad > 0);
    }
  }

  updateNames(names) {
    const select = $("name");
    const key = JSON.stringify(names);
    // Not while it is open: browsers close it.
    if (this.names === key || document.activeElement === select) return;
    this.names = key;
    const chosen = select.value;
    const options = names.map((one) => {
      const option = el("option", "", one.subjects ? `${one.name} (${count(one.subjects, "subject")})` : one.name);
      option.value = one.id;
      return option;
    });
    select.replaceChildren(select.options[0], ...options);
    select.value = chosen;
    if (select.selectedIndex < 0) select.value = "";
  }

  updateRows(rows, window) {
    const known = new Map();
    for (const row of rows) {
      const one = this.rows.get(row.id) ?? new Row(row.id);
      one.update(row, window);
      known.set(row.id, one);
    }
    let order = [...known.keys()];
    if ($("order").value && this.order === $("order").value && $("rows").matches(":hover, :focus-within")) {
      // What somebody is about to click stays where it is.
      const before = [...this.rows.keys()].filter((id) => known.has(id));
      order = [...before, ...order.filter((id) => !this.rows.has(id))];
    }
    this.order = $("order").value;
    this.rows = new Map(order.map((id) => [id, known.get(id)]));
    keep($("rows"), [...this.rows.values()].map((row) => row.node));
  }
}
