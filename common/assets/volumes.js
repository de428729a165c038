// What the pictures are made of: volumes that are unpacked from mosaics once, and slices of them.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const IMAGES = ["fixed", "moving", "warped"];
const COLORS = {
  fixed: "#ffb000",
  warped: "#00d0ff",
  grid: "#7cfc00",
  fold: "#ff00d4",
  split: "#ffffff",
  shade: "rgb(0 0 0 / 0.6)",
};
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
