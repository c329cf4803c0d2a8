// Small plots in SVG: a sparkline for a row, and a plot with axes and a crosshair.

const SVG = "http://www.w3.org/2000/svg";

export function shape(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// Cuts a list of [x, y or null] into runs without holes.
function runs(points, widest) {
  const found = [];
  let run = [];
  for (const point of points) {
    const last = run.at(-1);
    if (point[1] === null || (last && point[0] - last[0] > widest)) {
      if (run.length) found.push(run);
      run = [];
    }
    if (point[1] !== null) run.push(point);
  }
  if (run.length) found.push(run);
  return found;
}

function trace(run, bottom, radius) {
  // One look alone would be a line without a length.
  const points = run.length > 1 ? run : [[run[0][0] - radius, run[0][1]], [run[0][0] + radius, run[0][1]]];
  const line = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const area = `${line}L${points.at(-1)[0].toFixed(1)} ${bottom}L${points[0][0].toFixed(1)} ${bottom}Z`;
  return { line, area };
}

export function level(percent) {
  return percent >= 100 ? "bad" : percent >= 80 ? "warn" : "good";
}

export class Sparkline {
  constructor() {
    this.node = shape("svg", { class: "spark", viewBox: "0 0 160 32", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.node.append(shape("path", { class: "base", d: "M0 31.5H160" }), this.area, this.line);
  }

  update(peaks, span) {
    const step = 160 / peaks.length;
    const top = Math.max(100, ...peaks);
    const points = peaks.map((peak, i) => [(i + 0.5) * step, peak === null ? null : 30 - (peak / top) * 27]);
    // Keys that are read in turns leave slices empty between two looks.
    const traces = runs(points.filter((point) => point[1] !== null), Math.max(step * 4, (160 * 20) / span)).map((run) => trace(run, 31.5, 1.5));
    this.line.setAttribute("d", traces.map((one) => one.line).join(""));
    this.area.setAttribute("d", traces.map((one) => one.area).join(""));
    this.node.dataset.level = level(peaks.findLast((peak) => peak !== null) ?? 0);
  }
}

const LEFT = 40, RIGHT = 10, TOP = 10, BOTTOM = 22, HEIGHT = 150;

// A plot of values over the last `span` seconds; `write` turns a value into words.
export class Plot {
  constructor(what, write, fixedTop) {
    this.what = what;
    this.write = write;
    this.fixedTop = fixedTop;
    this.width = 480;
    this.points = [];
    this.at = null;
    this.node = document.createElement("figure");
    this.node.className = "plot";
    this.svg = shape("svg", { class: "plot-svg", height: HEIGHT, tabindex: "0", role: "img" });
    this.grid = shape("g", { class: "grid" });
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.cursor = shape("path", { class: "cursor" });
    this.mark = shape("circle", { class: "mark", r: 4, visibility: "hidden" });
    this.svg.append(this.grid, this.area, this.line, this.cursor, this.mark);
    this.readout = document.createElement("output");
    this.readout.className = "readout";
    this.node.append(this.svg, this.readout);
    new ResizeObserver(([entry]) => {
      this.width = Math.max(entry.contentRect.width, 160);
      this.draw();
    }).observe(this.node);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("blur", () => this.look(null));
    this.svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.points.length) return;
      event.preventDefault();
      const from = this.at ? this.points.findIndex((one) => one.age <= this.at.age) : this.points.length;
      this.look(this.points[Math.min(Math.max(from + step, 0), this.points.length - 1)]);
    });
  }

  update(points, span, quality, widest) {
    this.points = points;
    this.span = span;
    this.widest = widest;
    this.svg.dataset.level = quality;
    if (this.at) this.at = this.nearest(this.at.age);
    this.draw();
  }

  draw() {
    if (this.span === undefined) return;
    const { width, points, span } = this;
    const highest = points.reduce((most, one) => Math.max(most, one.value), 0);
    this.top = this.fixedTop ? Math.max(this.fixedTop, highest) : nice(highest);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.grid.replaceChildren();
    for (const part of [0, 0.5, 1]) {
      const value = (this.fixedTop ?? this.top) * part;
      const y = this.y(value);
      this.grid.append(shape("path", { d: `M${LEFT} ${y}H${width - RIGHT}`, class: part === 1 && this.fixedTop ? "full" : "" }));
      this.label(this.write(value), LEFT - 6, y + 4, "end");
    }
    const minutes = span / 60;
    for (const part of [1, 0.5, 0]) {
      const text = !part ? "now" : span < 120 ? `−${span * part} s` : `−${+(minutes * part).toFixed(1)} min`;
      this.label(text, this.x(span * part), HEIGHT - 5, part === 1 ? "start" : part ? "middle" : "end");
    }
    const drawn = points.map((one) => [this.x(one.age), this.y(one.value)]);
    const hole = (this.widest / span) * (width - LEFT - RIGHT);
    const traces = runs(drawn, hole).map((run) => trace(run, this.y(0), 1));
    this.line.setAttribute("d", traces.map((one) => one.line).join(""));
    this.area.setAttribute("d", traces.map((one) => one.area).join(""));
    const last = points.at(-1);
    this.svg.setAttribute("aria-label", last
      ? `${this.what}: now ${this.write(last.value)}, at most ${this.write(highest)} in the last ${span} seconds`
      : `${this.what}: nothing seen yet`);
    this.place();
  }

  label(text, x, y, anchor) {
    const node = shape("text", { x, y, "text-anchor": anchor });
    node.textContent = text;
    this.grid.append(node);
  }

  x(age) {
    return LEFT + (1 - age / this.span) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    return TOP + (1 - value / (this.top || 1)) * (HEIGHT - TOP - BOTTOM);
  }

  point(x) {
    this.look(this.nearest((1 - (x - LEFT) / (this.width - LEFT - RIGHT)) * this.span));
  }

  nearest(age) {
    let best = null;
    for (const one of this.points) if (!best || Math.abs(one.age - age) < Math.abs(best.age - age)) best = one;
    return best;
  }

  look(one) {
    this.at = one;
    this.place();
  }

  place() {
    const one = this.at;
    this.mark.setAttribute("visibility", one ? "visible" : "hidden");
    this.cursor.setAttribute("d", one ? `M${this.x(one.age)} ${TOP}V${HEIGHT - BOTTOM}` : "");
    if (one) {
      this.mark.setAttribute("cx", this.x(one.age));
      this.mark.setAttribute("cy", this.y(one.value));
    }
    const clock = one && new Date(Date.now() - one.age * 1000).toLocaleTimeString();
    this.readout.textContent = one ? `${this.write(one.value)} at ${clock}` : "";
  }
}

// The next round number above, so that the axis does not shake.
function nice(value) {
  if (value <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= value);
}
