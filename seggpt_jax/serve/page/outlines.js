// Outlines of masks along the edges of pixels, as results/outlines.py makes them: filled
// by the even-odd rule they hold exactly the mask.

const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // right, down, left, up

// A flat list x, y, x, y, ... for each connected part of a label, from the top. The
// outlines of holes are joined to that of their part.
export function polygons(labels, width, height, label) {
  const parts = new Int32Array(width * height); // 0: not of the label, or not yet seen
  const found = [];
  for (let start = 0; start < labels.length; start++) {
    if (labels[start] !== label || parts[start]) continue;
    const number = found.length + 1;
    const box = fill(parts, labels, width, height, start, number);
    const has = (x, y) => x >= 0 && y >= 0 && x < width && y < height && parts[y * width + x] === number;
    const [outer, ...holes] = rings(has, box);
    found.push(join(outer, holes).flat());
  }
  return found;
}

// Numbers a part; pixels that touch at a corner are connected. Returns its box.
function fill(parts, labels, width, height, start, number) {
  const stack = [start];
  let [left, top, right, bottom] = [width, height, 0, 0];
  parts[start] = number;
  while (stack.length) {
    const place = stack.pop();
    const [x, y] = [place % width, Math.floor(place / width)];
    [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    for (let row = Math.max(0, y - 1); row < Math.min(height, y + 2); row++) {
      for (let column = Math.max(0, x - 1); column < Math.min(width, x + 2); column++) {
        const next = row * width + column;
        if (labels[next] !== labels[start] || parts[next]) continue;
        parts[next] = number;
        stack.push(next);
      }
    }
  }
  return [left, top, right, bottom];
}

// The closed lines around a part, which lies to their right, and around its holes.
function rings(has, [left, top, right, bottom]) {
  const leaves = [ // whether an edge leaves the corner (x, y) to the right, down, left, up
    (x, y) => has(x, y) && !has(x, y - 1),
    (x, y) => has(x - 1, y) && !has(x, y),
    (x, y) => has(x - 1, y - 1) && !has(x - 1, y),
    (x, y) => has(x, y - 1) && !has(x - 1, y - 1),
  ];
  const seen = new Set();
  const found = [];
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column < right; column++) {
      if (!leaves[0](column, row) || seen.has(`${column} ${row}`)) continue;
      const ring = [];
      let [x, y, way, last] = [column, row, 0, 3];
      do {
        if (way === 0) seen.add(`${x} ${y}`);
        if (way !== last) ring.push([x, y]);
        [x, y, last] = [x + STEPS[way][0], y + STEPS[way][1], way];
        // A turn to the left first: so parts that touch at a corner are one.
        way = [(way + 3) % 4, way, (way + 1) % 4].find((turn) => leaves[turn](x, y));
      } while (x !== column || y !== row || way !== 0);
      if (last === 0) ring.shift(); // it began in the midst of a side
      found.push(ring);
    }
  }
  return found;
}

// One closed line through several: from the corner that is nearest to a hole it goes
// there, around, and back.
function join(base, holes) {
  const detours = new Map();
  for (const ring of holes) {
    let [nearest, corner, first] = [Infinity, 0, 0];
    for (const [k, [x, y]] of base.entries()) {
      for (const [i, [u, v]] of ring.entries()) {
        const gap = (x - u) ** 2 + (y - v) ** 2;
        if (gap < nearest) [nearest, corner, first] = [gap, k, i];
      }
    }
    const detour = [...ring.slice(first), ...ring.slice(0, first + 1)];
    detours.set(corner, [...(detours.get(corner) ?? []), detour]);
  }
  return base.flatMap((point, k) => [
    point, ...(detours.get(k) ?? []).flatMap((detour) => [...detour, point]),
  ]);
}
