// The page's parts put together: what is typed, clicked and pressed, and what is drawn after it.

const at = (id) => document.getElementById(id);
const pane = at("pane");
const views = {
  table: new VisibleItems(at("rows"), "tr", tableRow),
  gallery: new VisibleItems(at("gallery"), "div", galleryCard),
};
let view = "table";
let current = null; // the pair that keys act on
let histograms = null; // made when they are first seen

/** Filter and sort anew, then draw from the top. */
function refresh() {
  applyFilters();
  if (!order.includes(current)) current = order[0] ?? null;
  pane.scrollTop = 0;
  showState();
  draw();
}

/** Draw the rows or cards in sight. */
function draw() {
  views[view].draw(pane, order);
  markCurrent();
}

function markCurrent() {
  for (const [pair, item] of views[view].drawn) {
    if (pair === current) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
}

/** Everything around the rows: counts, filters, the order, distributions. */
function showState() {
  const all = `${COUNT.toLocaleString("en")} ${COUNT === 1 ? "pair" : "pairs"}`;
  at("count").textContent = isFiltered() ? `${order.length.toLocaleString("en")} of ${all}` : all;
  at("clear").hidden = !isFiltered();
  at("nothing").hidden = order.length > 0;
  at("table").setAttribute("aria-rowcount", String(order.length + 1));
  for (const chip of at("verdicts").children) {
    chip.setAttribute("aria-pressed", String(filter.verdicts.has(chip.dataset.verdict)));
  }
  at("method").value = filter.method;
  at("ranges").replaceChildren(...[...filter.ranges].map(([column, range]) => rangeChip(column, range)));
  showOrder();
  if (histograms !== null) histograms.forEach((histogram) => histogram.update());
}

function showOrder() {
  const falling = (sort.key === WORST) !== sort.reversed;
  at("sort").value = sort.key;
  at("direction").textContent = falling ? "↓" : "↑";
  for (const head of at("head").children) {
    if (head.dataset.key === sort.key) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function rangeChip(column, { low, high }) {
  const button = element("button", "chip", `${column.label}: ${shown(low)} to ${shown(high)} ×`);
  button.type = "button";
  button.addEventListener("click", () => {
    filter.ranges.delete(column);
    refresh();
  });
  return button;
}

function addVerdictChips() {
  for (const verdict of VERDICTS) {
    const count = DATA.verdict.at.filter((k) => DATA.verdict.of[k] === verdict).length;
    if (count === 0) continue;
    const chip = element("button", `chip ${verdict}`, `${VERDICT_WORDS[verdict]} `, element("b", "", count.toLocaleString("en")));
    chip.type = "button";
    chip.dataset.verdict = verdict;
    chip.addEventListener("click", () => {
      if (!filter.verdicts.delete(verdict)) filter.verdicts.add(verdict);
      refresh();
    });
    at("verdicts").append(chip);
  }
}

function addChoices() {
  const sorts = [[WORST, "worst first"], [NAME, "name"], ...COLUMNS.map(({ key, label }) => [key, label])];
  at("sort").append(...sorts.map(([key, label]) => new Option(label, key)));
  const methods = [...DATA.method.of].sort();
  at("method").append(new Option("all", ""), ...methods.filter(Boolean).map((name) => new Option(name, name)));
  at("method-field").hidden = methods.length < 2;
  at("head").append(...tableHead());
}

function listenToControls() {
  at("search").addEventListener("input", (event) => {
    filter.words = searched(event.target.value).split(/\s+/).filter(Boolean);
    refresh();
  });
  at("method").addEventListener("change", (event) => {
    filter.method = event.target.value;
    refresh();
  });
  at("sort").addEventListener("change", (event) => reorder(event.target.value));
  at("direction").addEventListener("click", () => reorder(sort.key));
  at("head").addEventListener("click", (event) => {
    if (event.target.closest("button")) reorder(event.target.closest("th").dataset.key);
  });
  at("clear").addEventListener("click", () => {
    clearFilters();
    at("search").value = "";
    refresh();
  });
  for (const name of ["table", "gallery"]) {
    at(`as-${name}`).addEventListener("click", () => {
      setView(name);
      pane.focus(); // the keys that follow are meant for the pairs
    });
  }
  at("distributions").addEventListener("toggle", showHistograms);
}

function reorder(key) {
  sortBy(key);
  views.gallery.drawn.clear(); // cards show the number that they are sorted by
  refresh();
}

function setView(name) {
  view = name;
  at("table").hidden = name !== "table";
  at("gallery").hidden = name !== "gallery";
  at("as-table").setAttribute("aria-pressed", String(name === "table"));
  at("as-gallery").setAttribute("aria-pressed", String(name === "gallery"));
  draw();
  reveal();
}

/** Whether there is any distribution to draw. */
function isVaried(column) {
  return column.values.some((value) => !Object.is(value, column.values[0]));
}

function showHistograms() {
  if (!at("distributions").open || histograms !== null) return;
  histograms = COLUMNS.filter(isVaried).map((column) => new Histogram(column, refresh));
  at("histograms").append(...histograms.map((histogram) => histogram.figure));
  histograms.forEach((histogram) => histogram.update());
}

function listenToPane() {
  let waiting = false;
  pane.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  });
  new ResizeObserver(draw).observe(pane);
  pane.addEventListener("click", (event) => {
    const item = event.target.closest("[data-pair]");
    if (item === null) return;
    current = Number(item.dataset.pair);
    markCurrent();
    if (event.target.closest("[data-look]")) lookAt(order.indexOf(current));
  });
}

/** Scroll so that the current pair is in sight. */
function reveal() {
  const above = view === "table" ? at("head").offsetHeight : 0;
  if (current !== null) views[view].scrollTo(pane, order.indexOf(current), above);
  draw();
}

function moveBy(steps) {
  if (order.length === 0) return;
  const position = Math.max(0, Math.min(order.indexOf(current) + steps, order.length - 1));
  current = order[position];
  reveal();
}

function openReport(pair) {
  const address = pair === null ? null : addressOf(pair, "report");
  if (address !== null) window.open(address, "_blank", "noopener");
}

function walk(steps) {
  lookAt(looked + steps);
  current = order[looked];
}

function keysOfDialog() {
  return {
    ArrowRight: () => walk(1), ArrowDown: () => walk(1), j: () => walk(1),
    ArrowLeft: () => walk(-1), ArrowUp: () => walk(-1), k: () => walk(-1),
    Home: () => walk(-Infinity), End: () => walk(Infinity),
    o: () => openReport(order[looked]),
  };
}

function keysOfPane() {
  const row = views[view].perRow;
  const page = row * Math.max(1, Math.floor(pane.clientHeight / views[view].rowHeight) - 1);
  const keys = {
    ArrowDown: () => moveBy(row), j: () => moveBy(row), ArrowUp: () => moveBy(-row), k: () => moveBy(-row),
    PageDown: () => moveBy(page), PageUp: () => moveBy(-page), Home: () => moveBy(-COUNT), End: () => moveBy(COUNT),
    Enter: () => order.length > 0 && lookAt(order.indexOf(current)),
    o: () => openReport(current),
    g: () => setView(view === "table" ? "gallery" : "table"),
    "/": () => at("search").focus(),
  };
  return row === 1 && view === "table" ? keys : { ...keys, ArrowRight: () => moveBy(1), ArrowLeft: () => moveBy(-1) };
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    const control = event.target.closest("input, select");
    if (control !== null && event.key === "Escape") pane.focus();
    if (control !== null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (["Enter", " "].includes(event.key) && event.target.closest("button, a, summary")) return; // it acts by itself
    const act = (isLooking() ? keysOfDialog() : keysOfPane())[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
  at("look-previous").addEventListener("click", () => walk(-1));
  at("look-next").addEventListener("click", () => walk(1));
  at("look-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    reveal();
    pane.focus();
  });
}

addVerdictChips();
addChoices();
listenToControls();
listenToPane();
listenToKeys();
at("distributions").hidden = !COLUMNS.some(isVaried);
at("distributions").open = matchMedia("(min-width: 800px) and (min-height: 700px)").matches;
setView("table");
refresh();
showHistograms();
pane.focus({ preventScroll: true });
requestAnimationFrame(() => setTimeout(() => performance.mark("drawn"))); // after the frame: `benchmark index` reads it
