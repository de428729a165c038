// The distribution of every number: all pairs pale, those that pass every filter in color; dragging across bars filters.

const BINS = 24;
const BAR = 6; // units of the drawing: a bar's width, and the height of the highest
const HEIGHT = 44;
const SVG = "http://www.w3.org/2000/svg";

/** A column's histogram: `bin` of each pair, 255 where it has no value; the end bins hold what lies beyond 1 and 99 %. */
function binned(column) {
  const finite = column.values.filter(Number.isFinite).sort();
  const at = (part) => finite[Math.round(part * (finite.length - 1))] ?? 0;
  let [low, high] = [at(0.01), at(0.99)];
  if (low === high) [low, high] = [at(0), at(1)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const width = (high - low) / BINS;
  const bin = Uint8Array.from(column.values, (value) =>
    Number.isNaN(value) ? 255 : Math.max(0, Math.min(BINS - 1, Math.floor((value - low) / width))));
  return { column, low, width, bin, all: counted(bin, [...bin.keys()]), least: at(0), most: at(1) };
}

function counted(bin, pairs) {
  const counts = new Uint32Array(256);
  for (const pair of pairs) counts[bin[pair]] += 1;
  return counts.subarray(0, BINS);
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A histogram in the page; `changed` is called when somebody filters by it. */
class Histogram {
  constructor(column, changed) {
    Object.assign(this, binned(column));
    this.changed = changed;
    this.drawing = svg("svg", { viewBox: `0 0 ${BINS * BAR} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.tip = svg("title", {});
    this.drawing.append(this.tip);
    this.bars = { all: this.addBars("all"), passing: this.addBars("passing") };
    this.ends = ["from", "to"].map((end) => this.addEnd(end));
    this.figure = element("figure", "histogram", element("figcaption", "", column.label), this.drawing,
      element("div", "ends", this.ends[0], "to", this.ends[1]));
    this.figure.dataset.key = column.key;
    this.setHeights("all", this.all);
    this.listen();
  }

  addBars(kind) {
    return Array.from({ length: BINS }, (_, k) => {
      const bar = svg("rect", { class: kind, x: k * BAR + 0.5, width: BAR - 1, y: HEIGHT, height: 0 });
      this.drawing.append(bar);
      return bar;
    });
  }

  addEnd(end) {
    const input = element("input");
    input.inputMode = "decimal";
    input.placeholder = shown(end === "from" ? this.least : this.most);
    input.setAttribute("aria-label", `${this.column.label} ${end}`);
    input.addEventListener("change", () => this.readEnds());
    return input;
  }

  /** Bars from counts; the smallest can still be seen. */
  setHeights(kind, counts) {
    const most = Math.max(1, ...this.all);
    this.bars[kind].forEach((bar, k) => {
      const height = counts[k] === 0 ? 0 : Math.max(1.5, (HEIGHT * counts[k]) / most);
      bar.setAttribute("y", HEIGHT - height);
      bar.setAttribute("height", height);
    });
  }

  /** Show what passes now, and the range that is chosen. */
  update() {
    this.setHeights("passing", counted(this.bin, order));
    const range = filter.ranges.get(this.column);
    this.figure.classList.toggle("chosen", range !== undefined);
    const texts = range === undefined ? ["", ""] : [range.low, range.high];
    this.ends.forEach((input, k) => { input.value = Number.isFinite(texts[k]) ? String(texts[k]) : ""; });
  }

  listen() {
    let start = null;
    const binAt = (event) => {
      const box = this.drawing.getBoundingClientRect();
      return Math.max(0, Math.min(BINS - 1, Math.floor(((event.clientX - box.left) / box.width) * BINS)));
    };
    this.drawing.addEventListener("pointerdown", (event) => {
      start = binAt(event);
      this.drawing.setPointerCapture(event.pointerId);
      this.mark(start, start);
    });
    this.drawing.addEventListener("pointermove", (event) => {
      this.say(binAt(event));
      if (start !== null) this.mark(start, binAt(event));
    });
    this.drawing.addEventListener("pointercancel", () => {
      start = null;
      this.unmark();
    });
    this.drawing.addEventListener("pointerup", (event) => {
      if (start === null) return;
      this.choose(start, binAt(event));
      start = null;
    });
  }

  /** Bars under the pointer while it drags. */
  mark(one, other) {
    const [first, last] = [Math.min(one, other), Math.max(one, other)];
    this.bars.all.forEach((bar, k) => bar.classList.toggle("marked", k >= first && k <= last));
  }

  unmark() {
    this.bars.all.forEach((bar) => bar.classList.remove("marked"));
  }

  /** What the bar under the pointer stands for, as the tooltip. */
  say(k) {
    const edge = (bin) => shown(Number((this.low + bin * this.width).toPrecision(4)));
    const low = k === 0 ? shown(this.least) : edge(k);
    const high = k === BINS - 1 ? shown(this.most) : edge(k + 1);
    this.tip.textContent = `${low} to ${high}: ${this.all[k]} pairs`;
  }

  /** Filter by the values that some bars hold; the same bars again take the filter away. */
  choose(one, other) {
    const [first, last] = [Math.min(one, other), Math.max(one, other)];
    this.unmark();
    let [low, high] = [Infinity, -Infinity];
    this.column.values.forEach((value, pair) => {
      if (this.bin[pair] >= first && this.bin[pair] <= last) [low, high] = [Math.min(low, value), Math.max(high, value)];
    });
    if (low > high) [low, high] = [this.low + first * this.width, this.low + (last + 1) * this.width];
    const before = filter.ranges.get(this.column);
    if (before !== undefined && before.low === low && before.high === high) filter.ranges.delete(this.column);
    else filter.ranges.set(this.column, { low, high });
    this.changed();
  }

  /** Filter by what was typed; an empty end is open. */
  readEnds() {
    const [low, high] = this.ends.map((input, k) => {
      const value = parseFloat(input.value.replace("−", "-").replace(",", "."));
      return Number.isNaN(value) ? [-Infinity, Infinity][k] : value;
    });
    if (low === -Infinity && high === Infinity) filter.ranges.delete(this.column);
    else filter.ranges.set(this.column, { low, high });
    this.changed();
  }
}
