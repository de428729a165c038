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
