// COCO annotations <-> labels `Uint8Array`, row by row. COCO counts down the columns.

import { polygons } from "./outlines.js";

// Paints an annotation's compressed run lengths into labels.
export function paint(labels, note) {
  const [height, width] = note.segmentation.size;
  let place = 0;
  let inside = false;
  for (const run of runs(note.segmentation.counts)) {
    for (let k = place; inside && k < place + run; k++) {
      labels[(k % height) * width + Math.floor(k / height)] = note.label;
    }
    place += run;
    inside = !inside;
  }
}

// pycocotools' text of run lengths: 5 bits a letter, and from the third run on the
// difference to the run before the last.
function runs(text) {
  const counts = [];
  for (let k = 0; k < text.length; ) {
    let value = 0;
    let shift = 0;
    let letter;
    do {
      letter = text.charCodeAt(k++) - 48;
      value |= (letter & 31) << shift;
      shift += 5;
    } while (letter & 32);
    if (letter & 16 && shift < 32) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

// An annotation for each label of corrected labels. What people drew has the score 1.
export function annotations(labels, width, height) {
  const found = [...new Set(labels)].filter((label) => label).sort((a, b) => a - b);
  return found.map((label) => {
    const counts = [0];
    let [area, left, top, right, bottom] = [0, width, height, 0, 0];
    let inside = false;
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        const here = labels[y * width + x] === label;
        if (here !== inside) counts.push(0);
        inside = here;
        counts[counts.length - 1]++;
        if (!here) continue;
        area++;
        [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
      }
    }
    return {
      label, segmentation: { size: [height, width], counts }, area, score: 1,
      polygons: polygons(labels, width, height, label),
      bbox: [left, top, right - left, bottom - top], iscrowd: 0,
    };
  });
}

// Pictures with their annotations -> one data set. nameOf: label -> the class's name.
export function dataSet(pictures, categories, nameOf) {
  const set = { images: [], annotations: [], categories };
  for (const [index, picture] of pictures.entries()) {
    const { name, width, height } = picture;
    set.images.push({ id: index + 1, file_name: name, height, width });
    for (const note of picture.annotations ?? annotations(picture.labels, width, height)) {
      const category = categories.find((each) => each.name === nameOf(note.label));
      set.annotations.push({
        ...note, id: set.annotations.length + 1, image_id: index + 1,
        category_id: category.id,
      });
    }
  }
  return set;
}
