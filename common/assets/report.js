// What is on the page and follows mouse, finger and keys.

// Pictures

function drawLayer(context, layer, planeIndex, width, height) {
  const plane = data.planes[planeIndex];
  context.drawImage(bitmap(layer, planeIndex), 0, 0, width, height);
  if (layer === "grid") drawGrid(context, plane, width, height);
  if (layer === "grid" || layer === "jacobian") drawFolds(context, plane, width, height);
  if (state.outlines) for (const name of OUTLINES[layer] || []) drawOutline(context, name, plane, width, height);
}

function drawPicture(picture) {
  const { canvas, row, plane } = picture, { left, right, split } = state.rows[row];
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * scale)));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), middle = Math.round((split / 100) * width);
  for (const [layer, from, to] of [[left, 0, middle], [right, middle, width]]) {
    if (to <= from) continue;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, height);
    context.clip();
    drawLayer(context, layer, plane, width, height);
    context.restore();
  }
  if (middle > 0 && middle < width) drawSplit(context, middle, height, Math.round(scale));
  canvas.setAttribute("aria-valuenow", Math.round(split));
  canvas.setAttribute("aria-valuetext", `${left} on ${Math.round(split)} percent, ${right} on the rest`);
}

// A line that can be seen on black and on white, with something to take hold of
function drawSplit(context, middle, height, unit) {
  context.fillStyle = COLORS.shade;
  context.fillRect(middle - unit, 0, 3 * unit, height);
  context.fillStyle = COLORS.split;
  context.fillRect(middle, 0, unit, height);
  context.strokeStyle = COLORS.shade;
  context.lineWidth = unit;
  context.beginPath();
  context.arc(middle + unit / 2, height / 2, 6 * unit, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
}

const pictures = [...document.querySelectorAll("[data-row] figure")].map((figure) => ({
  canvas: figure.querySelector("canvas"),
  slider: figure.querySelector("input"),
  output: figure.querySelector("output"),
  row: figure.closest("[data-row]").dataset.row,
  plane: Number(figure.dataset.plane),
}));
const stale = new Set();

// Draw at the next frame, once, however many events ask for it
function redraw(which) {
  const waiting = stale.size > 0;
  pictures.filter(which).forEach((picture) => stale.add(picture));
  if (waiting || stale.size === 0) return;
  requestAnimationFrame(() => {
    const due = [...stale];
    stale.clear();
    due.forEach(drawPicture);
  });
}

function setSlice(axis, index) {
  state.index[axis] = Math.min(Math.max(index, 0), data.size[axis] - 1);
  for (const { slider, output, plane } of pictures) {
    if (!slider || data.planes[plane].axis !== axis) continue;
    slider.value = state.index[axis];
    output.textContent = `${state.index[axis] + 1} of ${data.size[axis]}`;
  }
  // the displaced grid lies in the other planes too, but there it is drawn at their own slices
  redraw(({ plane }) => data.planes[plane].axis === axis);
}

function setSplit(row, percent) {
  state.rows[row].split = Math.min(Math.max(percent, 0), 100);
  redraw((picture) => picture.row === row);
}

function followPointer({ canvas, row }) {
  const toPointer = (event) => {
    const box = canvas.getBoundingClientRect();
    setSplit(row, (100 * (event.clientX - box.left)) / box.width);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    toPointer(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) toPointer(event);
  });
}

function followKeys({ canvas, row, plane }) {
  const { axis } = data.planes[plane];
  canvas.addEventListener("keydown", (event) => {
    const { split } = state.rows[row];
    const splits = { ArrowLeft: split - 2, ArrowRight: split + 2, Home: 0, End: 100 };
    const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    if (event.key in splits) setSplit(row, splits[event.key]);
    else if (event.key in steps && axis !== null) setSlice(axis, state.index[axis] + steps[event.key]);
    else return;
    event.preventDefault();
  });
}

// What stands beside the pictures

function colorBar(palette, low, high, unit) {
  const entry = document.createElement("span"), bar = document.createElement("canvas");
  [bar.width, bar.height] = [256, 1];
  const context = bar.getContext("2d"), image = context.createImageData(256, 1);
  for (let k = 0; k < 256; k++) image.data.set([...PALETTES[palette].subarray(3 * k, 3 * k + 3), 255], 4 * k);
  context.putImageData(image, 0, 0);
  entry.append(low, bar, `${high} ${unit}`);
  return entry;
}

const BARS = {
  difference: () => {
    const limit = data.difference.toFixed(2);
    return colorBar("difference", `−${limit}`, limit, "of the gray window");
  },
  jacobian: () => {
    const { extent } = data.jacobian;
    return colorBar("jacobian", `shrinks −${extent}`, extent, "expands (log det J)");
  },
  displacement: () => colorBar("displacement", "0", data.displacement.most.toFixed(1), "mm"),
  error: () => colorBar("displacement", "0", data.error.most.toFixed(1), "mm (95 % of errors are smaller)"),
};
const BAR_OF = {
  before: "difference",
  after: "difference",
  jacobian: "jacobian",
  displacement: "displacement",
  error: "error",
};

function drawLegend(section) {
  const { left, right } = state.rows[section.dataset.row], shownLayers = [left, right];
  const legend = section.querySelector(".legend");
  const bars = [...new Set(shownLayers.map((layer) => BAR_OF[layer]).filter(Boolean))];
  legend.replaceChildren(...bars.map((bar) => BARS[bar]()));
  if (data.folds && shownLayers.some((layer) => layer === "grid" || layer === "jacobian")) {
    const fold = document.createElement("span");
    fold.className = "fold";
    fold.textContent = "folds";
    legend.append(fold);
  }
}

function drawJoint(canvas, other) {
  const counts = new Uint32Array(BINS * BINS), first = volumes.fixed.voxels, second = volumes[other].voxels;
  for (let k = 0; k < first.length; k++) {
    const [right, up] = [first[k] >> 2, second[k] >> 2];
    if (right > 0 && up > 0) counts[(BINS - 1 - up) * BINS + right]++; // background would outshine all else
  }
  const scale = 255 / Math.log1p(counts.reduce((most, n) => Math.max(most, n), 1));
  const bitmapCanvas = coloredBitmap(BINS, BINS, "displacement", (r, c) => Math.log1p(counts[r * BINS + c]) * scale);
  canvas.getContext("2d").drawImage(bitmapCanvas, 0, 0);
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === "" || second === "") return (first === "") - (second === ""); // unknown comes last
    const difference = Number(first) - Number(second);
    return (down ? -1 : 1) * (Number.isNaN(difference) ? first.localeCompare(second) : difference);
  };
  body.append(...[...body.rows].sort(order));
}

// Start

function listen() {
  for (const section of document.querySelectorAll("[data-row]")) {
    const chosen = Object.fromEntries([...section.querySelectorAll("select")].map((s) => [s.dataset.side, s.value]));
    const row = section.dataset.row;
    state.rows[row] = { ...chosen, split: 50 };
    drawLegend(section);
    for (const select of section.querySelectorAll("select")) {
      select.addEventListener("change", () => {
        state.rows[row][select.dataset.side] = select.value;
        drawLegend(section);
        redraw((picture) => picture.row === row);
      });
    }
  }
  for (const picture of pictures) {
    followPointer(picture);
    followKeys(picture);
    if (picture.slider) {
      const { axis } = data.planes[picture.plane];
      picture.slider.addEventListener("input", () => setSlice(axis, Number(picture.slider.value)));
    }
  }
  document.getElementById("outlines")?.addEventListener("change", (event) => {
    state.outlines = event.target.checked;
    redraw(() => true);
  });
  document.getElementById("find-folds")?.addEventListener("click", () => {
    data.folds.most.forEach((k, axis) => setSlice(axis, k));
  });
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, k) => {
      head.firstElementChild.addEventListener("click", () => sortBy(table, k));
    });
  }
}

async function start() {
  const viewer = document.getElementById("viewer"), status = document.getElementById("status");
  try {
    for (const name of IMAGES) volumes[name] = await unpack(data.images[name]);
    volumes.jacobian = await unpack(data.jacobian);
    if (data.error) volumes.error = await unpack(data.error);
    if (data.folds) volumes.folds = await unpack(data.folds);
    for (const [name, mosaic] of Object.entries(data.labels)) volumes[`${name}-label`] = await unpack(mosaic);
  } catch (error) {
    status.textContent = `This browser cannot unpack the pictures (${error.message}).`;
    return;
  }
  volumes.lattice = unpackLattice(data.displacement);
  listen();
  data.size.forEach((_, axis) => setSlice(axis, state.index[axis]));
  pictures.forEach(drawPicture);
  drawJoint(document.getElementById("joint-before"), "moving");
  drawJoint(document.getElementById("joint-after"), "warped");
  new ResizeObserver(() => redraw(() => true)).observe(viewer);
  status.remove();
  viewer.setAttribute("aria-busy", "false");
}

start();
