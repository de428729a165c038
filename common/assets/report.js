// The pictures of a registration: volumes are unpacked from mosaics once, and every slice is drawn from them.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const IMAGES = ["fixed", "moving", "warped"];
const COLORS = { fixed: "#ffb000", warped: "#00d0ff", grid: "#7cfc00", fold: "#ff00d4", split: "#ffffff", shade: "rgb(0 0 0 / 0.6)" };
const OUTLINES = { fixed: ["fixed"], moving: ["fixed"], warped: ["fixed", "warped"], grid: [] };
const CACHED = 90; // slices; what is older is painted anew
const BINS = 64;

const volumes = {};
const bitmaps = new Map();
const state = { index: [...data.center], outlines: true, rows: {} };

// Volumes

function strides(size) {
  return size.map((_, axis) => size.slice(axis + 1).reduce((product, n) => product * n, 1));
}

async function unpack(mosaic) {
  const image = new Image();
  image.src = mosaic.src;
  await image.decode();
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [image.width, image.height];
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const size = mosaic.size, step = strides(size), axes = [...size.keys()].filter((axis) => axis !== mosaic.axis);
  const [height, width] = axes.map((axis) => size[axis]);
  const voxels = new Uint8Array(size.reduce((product, n) => product * n, 1));
  const count = mosaic.axis === null ? 1 : size[mosaic.axis];
  for (let tile = 0; tile < count; tile++) {
    const left = (tile % mosaic.columns) * mosaic.pitch[1], top = Math.floor(tile / mosaic.columns) * mosaic.pitch[0];
    const pixels = context.getImageData(left, top, width, height).data;
    const start = mosaic.axis === null ? 0 : tile * step[mosaic.axis];
    for (let r = 0, from = 0; r < height; r++) {
      for (let c = 0, to = start + r * step[axes[0]]; c < width; c++, from += 4, to += step[axes[1]]) {
        voxels[to] = pixels[from];
      }
    }
  }
  return { size, step, voxels };
}

function unpackLattice(packed) {
  const bytes = Uint8Array.from(atob(packed.src), (character) => character.charCodeAt(0));
  const codes = new DataView(bytes.buffer), values = new Float32Array(bytes.length / 2);
  for (let k = 0; k < values.length; k++) values[k] = (codes.getInt16(2 * k, true) / 32767) * packed.extent;
  return { size: packed.size, step: strides(packed.size), values, nodes: values.length / packed.size.length };
}

// A slice as it lies on the screen: first row on top, first column left, values by their index in the volume
function sliceOf(volume, plane) {
  const { size, step } = volume, height = size[plane.rows], width = size[plane.columns];
  let start = 0, down = step[plane.rows], right = step[plane.columns];
  if (plane.axis !== null) start += shown(state.index[plane.axis], plane.axis, size) * step[plane.axis];
  if (plane.flip_rows) [start, down] = [start + (height - 1) * down, -down];
  if (plane.flip_columns) [start, right] = [start + (width - 1) * right, -right];
  return { height, width, at: (r, c) => start + r * down + c * right };
}

// The index, in a volume of another size over the same field of view, of a voxel of the fixed image
function shown(index, axis, size) {
  return Math.floor(((index + 0.5) * size[axis]) / data.size[axis]);
}

// Displacement in mm along one axis at a point in voxels of the fixed image, linear between the lattice's nodes
function displacement(component, point) {
  const { size, step, values, nodes } = volumes.lattice;
  let corners = [[component * nodes, 1]];
  for (let axis = 0; axis < size.length; axis++) {
    const at = (point[axis] / Math.max(data.size[axis] - 1, 1)) * (size[axis] - 1);
    const low = Math.min(Math.max(Math.floor(at), 0), size[axis] - 2), share = Math.min(Math.max(at - low, 0), 1);
    corners = corners.flatMap(([index, weight]) => [
      [index + low * step[axis], weight * (1 - share)],
      [index + (low + 1) * step[axis], weight * share],
    ]);
  }
  return corners.reduce((sum, [index, weight]) => sum + weight * values[index], 0);
}

// Layers: each is painted once a slice as pixels

const PALETTES = Object.fromEntries(
  Object.entries(data.palettes).map(([name, hex]) => [
    name,
    Uint8Array.from(hex.match(/../g), (digits) => parseInt(digits, 16)),
  ]),
);

function bitmapOf(height, width, paint) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let r = 0, to = 0; r < height; r++) {
    for (let c = 0; c < width; c++, to += 4) {
      paint(image.data, to, r, c);
      image.data[to + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function grayBitmap(name, plane) {
  const { height, width, at } = sliceOf(volumes[name], plane), { voxels } = volumes[name];
  return bitmapOf(height, width, (pixels, to, r, c) => pixels.fill(voxels[at(r, c)], to, to + 3));
}

function coloredBitmap(height, width, palette, codeOf) {
  const colors = PALETTES[palette];
  return bitmapOf(height, width, (pixels, to, r, c) => {
    const code = 3 * Math.min(Math.max(Math.floor(codeOf(r, c)), 0), 255);
    for (let k = 0; k < 3; k++) pixels[to + k] = colors[code + k];
  });
}

function differenceBitmap(other, plane) {
  const { height, width, at } = sliceOf(volumes.fixed, plane);
  const fixed = volumes.fixed.voxels, changed = volumes[other].voxels, scale = 128 / (255 * data.difference);
  return coloredBitmap(height, width, "difference", (r, c) => 128 + (fixed[at(r, c)] - changed[at(r, c)]) * scale);
}

function jacobianBitmap(plane) {
  const { height, width, at } = sliceOf(volumes.jacobian, plane), { voxels } = volumes.jacobian;
  return coloredBitmap(height, width, "jacobian", (r, c) => voxels[at(r, c)]);
}

function errorBitmap(plane) {
  const { height, width, at } = sliceOf(volumes.error, plane), { voxels } = volumes.error;
  return coloredBitmap(height, width, "displacement", (r, c) => voxels[at(r, c)]);
}

function displacementBitmap(plane) {
  const { height, width } = sliceOf(volumes.lattice, plane), components = data.size.map((_, axis) => axis);
  const across = width * 3, down = height * 3; // finer than the lattice, for a smooth picture
  return coloredBitmap(down, across, "displacement", (r, c) => {
    const point = pointAt(plane, (r + 0.5) / down, (c + 0.5) / across);
    return (255 * Math.hypot(...components.map((k) => displacement(k, point)))) / data.displacement.most;
  });
}

// Where a share of the picture's height and width lies in voxels of the fixed image
function pointAt(plane, down, right) {
  const point = [...state.index];
  const rows = data.size[plane.rows] * (plane.flip_rows ? 1 - down : down);
  const columns = data.size[plane.columns] * (plane.flip_columns ? 1 - right : right);
  [point[plane.rows], point[plane.columns]] = [rows - 0.5, columns - 0.5];
  return point;
}

const LAYERS = {
  fixed: (plane) => grayBitmap("fixed", plane),
  moving: (plane) => grayBitmap("moving", plane),
  warped: (plane) => grayBitmap("warped", plane),
  before: (plane) => differenceBitmap("moving", plane),
  after: (plane) => differenceBitmap("warped", plane),
  grid: (plane) => grayBitmap("fixed", plane),
  jacobian: jacobianBitmap,
  displacement: displacementBitmap,
  error: errorBitmap,
};

function bitmap(layer, planeIndex) {
  const plane = data.planes[planeIndex], at = plane.axis === null ? 0 : state.index[plane.axis];
  const key = `${layer} ${planeIndex} ${at}`;
  if (!bitmaps.has(key)) {
    if (bitmaps.size >= CACHED) bitmaps.delete(bitmaps.keys().next().value);
    bitmaps.set(key, LAYERS[layer](plane));
  }
  return bitmaps.get(key);
}

// Lines over the pixels

function drawGrid(context, plane, width, height) {
  const longest = Math.max(...data.size.map((n, axis) => n * data.spacing[axis])) / data.lines;
  context.strokeStyle = COLORS.grid;
  context.lineWidth = Math.max(1, width / 900);
  context.beginPath();
  for (const [along, across] of [[plane.rows, plane.columns], [plane.columns, plane.rows]]) {
    const every = Math.max(1, Math.round(longest / data.spacing[along]));
    const points = Math.max(2, Math.min(data.size[across], 160));
    for (let line = Math.floor(every / 2); line < data.size[along]; line += every) {
      for (let k = 0; k < points; k++) {
        const point = [...state.index];
        [point[along], point[across]] = [line, (k / (points - 1)) * (data.size[across] - 1)];
        const [x, y] = onScreen(plane, moved(point, plane), width, height);
        if (k === 0) context.moveTo(x, y);
        else context.lineTo(x, y);
      }
    }
  }
  context.stroke();
}

// A point after the part of its displacement that lies in the plane
function moved(point, plane) {
  const to = [...point];
  for (const axis of [plane.rows, plane.columns]) to[axis] += displacement(axis, point) / data.spacing[axis];
  return to;
}

function onScreen(plane, point, width, height) {
  const down = (point[plane.rows] + 0.5) / data.size[plane.rows];
  const right = (point[plane.columns] + 0.5) / data.size[plane.columns];
  return [(plane.flip_columns ? 1 - right : right) * width, (plane.flip_rows ? 1 - down : down) * height];
}

function drawFolds(context, plane, width, height) {
  if (!volumes.folds) return;
  const slice = sliceOf(volumes.folds, plane), { voxels } = volumes.folds;
  const [w, h] = [width / slice.width, height / slice.height];
  const least = 2 * (window.devicePixelRatio || 1); // a single voxel can still be seen
  context.fillStyle = COLORS.fold;
  for (let r = 0; r < slice.height; r++) {
    for (let c = 0; c < slice.width; c++) {
      if (!voxels[slice.at(r, c)]) continue;
      const [x, y] = [Math.floor(c * w), Math.floor(r * h)];
      context.fillRect(x, y, Math.max(Math.ceil((c + 1) * w) - x, least), Math.max(Math.ceil((r + 1) * h) - y, least));
    }
  }
}

function drawOutline(context, name, plane, width, height) {
  const volume = volumes[`${name}-label`];
  if (!volume) return;
  const slice = sliceOf(volume, plane), value = (r, c) => volume.voxels[slice.at(r, c)];
  const [w, h] = [width / slice.width, height / slice.height];
  context.strokeStyle = COLORS[name];
  context.lineWidth = Math.max(1, width / 600);
  context.beginPath();
  for (let r = 0; r < slice.height; r++) {
    for (let c = 0; c < slice.width; c++) {
      if (c + 1 < slice.width && value(r, c) !== value(r, c + 1)) line(context, (c + 1) * w, r * h, 0, h);
      if (r + 1 < slice.height && value(r, c) !== value(r + 1, c)) line(context, c * w, (r + 1) * h, w, 0);
    }
  }
  context.stroke();
}

function line(context, x, y, right, down) {
  context.moveTo(x, y);
  context.lineTo(x + right, y + down);
}

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
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map((n) => Math.max(1, Math.round(n)));
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
  difference: () => colorBar("difference", `−${data.difference.toFixed(2)}`, data.difference.toFixed(2), "of the gray window"),
  jacobian: () => colorBar("jacobian", `shrinks −${data.jacobian.extent}`, data.jacobian.extent, "expands (log det J)"),
  displacement: () => colorBar("displacement", "0", data.displacement.most.toFixed(1), "mm"),
  error: () => colorBar("displacement", "0", data.error.most.toFixed(1), "mm (95 % of errors are smaller)"),
};
const BAR_OF = { before: "difference", after: "difference", jacobian: "jacobian", displacement: "displacement", error: "error" };

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
  for (let k = 0; k < first.length; k++) counts[((255 - second[k]) >> 2) * BINS + (first[k] >> 2)]++;
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
  document.getElementById("find-folds")?.addEventListener("click", () => data.folds.most.forEach((k, axis) => setSlice(axis, k)));
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, k) => head.firstElementChild.addEventListener("click", () => sortBy(table, k)));
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
