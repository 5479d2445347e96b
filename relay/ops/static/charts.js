// Small line charts in SVG without a library: a labelled picture, a sentence for screen readers, and arrow keys to read single
// points. Only the newest point moves, so the charts need no setting for reduced motion.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 96;
const LEFT = 2;
const TOP = 8;
const BOTTOM = 16;

function shape(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function text(tag, className, content, parent) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = content;
  parent.append(element);
  return element;
}

/** The smallest 1, 2 or 5 times a power of ten that is not below `value`. */
export function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** One panel with a title, the newest value, and up to two lines over the last `capacity` moments. */
export class Chart {
  constructor({ title, series, format, capacity, step_s, parent }) {
    this.format = format;
    this.capacity = capacity;
    this.step_s = step_s;
    this.title = title;
    this.names = series;
    this.values = series.map(() => []);
    const figure = document.createElement("figure");
    figure.className = "panel chart";
    const caption = text("figcaption", "", "", figure);
    text("span", "title", title, caption);
    this.legend = series.map((name, index) => {
      const item = text("span", `key line-${index}`, "", caption);
      if (series.length > 1) text("span", "name", name, item);
      return text("b", "", "–", item);
    });
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0" }, figure);
    this.label = shape("title", {}, this.svg);
    for (const share of [0, 0.5, 1]) {
      const y = this.#y(share, 1);
      shape("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: share ? "grid" : "grid base" }, this.svg);
    }
    this.area = shape("path", { class: "area" }, this.svg);
    this.lines = series.map((_, index) => shape("path", { class: `stroke line-${index}` }, this.svg));
    this.cursor = shape("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }, this.svg);
    this.scale = text("span", "scale", "", figure);
    this.span = text("span", "span", "", figure);
    this.readout = text("output", "readout", "", figure);
    this.readout.hidden = true;
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#look(null));
    this.svg.addEventListener("blur", () => this.#look(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    parent.append(figure);
  }

  /** Adds one moment: a number or null for each line. */
  add(values) {
    values.forEach((value, index) => {
      const line = this.values[index];
      line.push(Number.isFinite(value) ? value : null);
      if (line.length > this.capacity) line.shift();
    });
    this.#draw();
  }

  /** Leaves out moments of which nothing is known, so that older points move to their time. */
  skip(count) {
    for (const line of this.values)
      for (let left = Math.min(count, this.capacity); line.length && left > 0; left--) {
        line.push(null);
        if (line.length > this.capacity) line.shift();
      }
  }

  /** Shows that nothing is known of the newest moments. */
  pass(count) {
    this.skip(count);
    this.#draw();
  }

  clear() {
    for (const line of this.values) line.length = 0;
    this.#look(null);
    this.#draw();
  }

  #draw() {
    const known = this.values.flat().filter((value) => value !== null);
    const top = niceCeiling(Math.max(0, ...known));
    this.values.forEach((line, index) => {
      this.legend[index].textContent = this.#said(line.at(-1));
      const parts = [];
      line.forEach((value, at) => {
        if (value === null) return;
        const begins = at === 0 || line[at - 1] === null;
        parts.push(`${begins ? "M" : "L"}${this.#x(at, line.length).toFixed(1)} ${this.#y(value, top).toFixed(1)}`);
      });
      this.lines[index].setAttribute("d", parts.join(""));
    });
    const first = this.values[0];
    const whole = first.length > 1 && first.every((value) => value !== null);
    const floor = HEIGHT - BOTTOM;
    this.area.setAttribute("d", whole
      ? `${this.lines[0].getAttribute("d")}L${WIDTH - LEFT} ${floor}L${this.#x(0, first.length).toFixed(1)} ${floor}Z` : "");
    this.scale.textContent = known.length ? this.format(top) : "";
    this.span.textContent = first.length > 1 ? `${ago(this.#moments() * this.step_s)} ago` : "";
    const latest = this.names.map((name, index) => `${this.names.length > 1 ? `${name} ` : ""}${this.#said(this.values[index].at(-1))}`);
    const range = known.length ? `, between ${this.format(Math.min(...known))} and ${this.format(Math.max(...known))} in ${ago((first.length - 1) * this.step_s)}` : "";
    this.label.textContent = `${this.title}: ${latest.join(", ")}${range}. Arrow keys read single moments.`;
    if (this.at !== undefined && this.at !== null) this.#look(this.at);
  }

  // a new chart shows two minutes, and becomes wider until it shows all points that it keeps
  #moments() { return Math.max(Math.min(60, this.capacity), this.values[0].length) - 1; }
  #step() { return (WIDTH - 2 * LEFT) / this.#moments(); }
  #x(at, length) { return WIDTH - LEFT - (length - 1 - at) * this.#step(); }
  #y(value, top) { return HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM); }
  #said(value) { return value === null || value === undefined ? "–" : this.format(value); }

  #point(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const length = this.values[0].length;
    const at = Math.round(length - 1 - (WIDTH - LEFT - x) / this.#step());
    this.#look(at >= 0 && at < length ? at : null);
  }

  #key(event) {
    const last = this.values[0].length - 1;
    const at = this.at ?? last;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#look(to === null ? null : Math.min(Math.max(to, 0), last));
  }

  #look(at) {
    const length = this.values[0].length;
    this.at = at !== null && at < length ? at : null;
    this.readout.hidden = this.at === null;
    this.cursor.setAttribute("visibility", this.at === null ? "hidden" : "visible");
    if (this.at === null) return;
    const x = this.#x(this.at, length);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const said = this.names.map((name, index) => `${this.names.length > 1 ? `${name} ` : ""}${this.#said(this.values[index][this.at])}`);
    const back = (length - 1 - this.at) * this.step_s;
    this.readout.textContent = `${said.join(" · ")}, ${back ? `${ago(back)} ago` : "now"}`;
  }
}

/** A length of time in a few characters. */
export function ago(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(Number.isInteger(seconds) ? 0 : 1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** A count in a few characters. */
export function short(number) {
  if (number === 0) return "0";
  if (Math.abs(number) < 10 && !Number.isInteger(number)) return number.toFixed(1);
  if (Math.abs(number) < 10_000) return Math.round(number).toLocaleString("en");
  return Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);
}

/** The quantile of the durations that were counted in buckets between two requests; null without any. */
export function quantile(bounds, before, after, share) {
  const counts = after.map((count, index) => count - before[index]);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  let left = total * share;
  for (let index = 0; index < counts.length; index++) {
    if (counts[index] >= left && counts[index] > 0) {
      const low = index ? bounds[index - 1] : 0;
      const high = bounds[Math.min(index, bounds.length - 1)];
      return low + ((high - low) * left) / counts[index];
    }
    left -= counts[index];
  }
  return bounds.at(-1);
}
