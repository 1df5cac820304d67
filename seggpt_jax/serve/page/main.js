// The page: examples with labels on one side, images with results on the other.

import { ask, Fault } from "./api.js";
import { labelPng, zip } from "./bytes.js";
import { dataSet, paint } from "./coco.js";
import { Editor } from "./editor.js";
import { Picture } from "./picture.js";

const TOGETHER = 4; // requests at once
const find = (id) => document.getElementById(id);
const colors = [ // of the labels 1, 2, ...; further ones have them again, darker
  [255, 80, 40], [40, 140, 255], [60, 200, 80], [230, 60, 230], [255, 255, 180],
  [180, 255, 0], [0, 255, 180], [60, 0, 180], [120, 255, 255], [0, 255, 0],
];
const labels = new Map(); // label -> the field with its name
const examples = [];
const images = [];
let prompts = null; // the server's answer, as long as the examples are the same
let running = false;

const editor = new Editor({ colors: colorOf, changed, said });

function colorOf(label) {
  const share = 0.55 ** Math.floor((label - 1) / colors.length);
  return colors[(label + colors.length - 1) % colors.length].map((x) => Math.round(share * x));
}

function palette() {
  return Object.fromEntries([...labels.keys()].map((label) => [label, colorOf(label)]));
}

function nameOf(label) {
  return labels.get(label)?.value.trim() || String(label);
}

// As people read it: a label without a name is a bare number.
function titleOf(label) {
  const name = nameOf(label);
  return name === String(label) ? `label ${label}` : name;
}

function said(text, fault = false) {
  find("status").textContent = text;
  find("status").className = fault ? "fault" : "";
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Labels

function addLabel() {
  const label = labels.size + 1;
  const name = element("input", { type: "text", placeholder: `name of label ${label}` });
  name.setAttribute("aria-label", `Name of label ${label}`);
  name.addEventListener("input", () => {
    prompts = null; // names are the server's, too
  });
  const radio = element("input", { type: "radio", name: "label", value: `${label}`, checked: true });
  radio.setAttribute("aria-label", `Label ${label}`);
  radio.addEventListener("change", () => editor.choose(label));
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = `rgb(${colorOf(label).join(" ")})`;
  labels.set(label, name);
  find("labels").append(element("div", { className: "label" }, radio, swatch, name));
  if (label > 1) editor.choose(label);
}

// Cards

function makeCard(picture, list, buttons) {
  const canvas = element("canvas", {});
  canvas.setAttribute("role", "img");
  picture.card = element(
    "li", { className: "card" }, canvas, element("p", {}),
    ...buttons.map(([text, run]) => {
      const button = element("button", { type: "button", textContent: text });
      button.setAttribute("aria-label", `${text}: ${picture.name}`);
      button.addEventListener("click", run);
      return button;
    }),
  );
  find(list).append(picture.card);
  show(picture);
}

function show(picture) {
  const [canvas, text] = picture.card.children;
  picture.thumbnail(canvas, colorOf);
  text.textContent = [picture.name, picture.fault || stateOf(picture)].filter(Boolean).join(": ");
  text.className = picture.fault ? "fault" : "";
  canvas.setAttribute("aria-label", text.textContent);
}

function stateOf(picture) {
  if (examples.includes(picture)) return picture.empty ? "draw its mask" : "";
  if (!picture.done) return running ? "..." : "";
  if (!picture.annotations) return "corrected";
  if (!picture.annotations.length) return "nothing found";
  return picture.annotations.map((note) => `${titleOf(note.label)}, score ${note.score.toFixed(2)}`).join("; ");
}

function open(picture, what) {
  editor.open(picture);
  find("editing").textContent = `${what}: ${picture.name}`;
  find("stage").focus({ preventScroll: true });
  find("editor").scrollIntoView({ block: "nearest" });
}

function changed(picture) {
  if (examples.includes(picture)) prompts = null;
  else Object.assign(picture, { annotations: null, done: true });
  show(picture);
  enable();
}

function enable() {
  const done = images.some((picture) => picture.done);
  find("run").disabled = running || !images.length || examples.every((picture) => picture.empty);
  find("masks").disabled = find("coco").disabled = running || !done;
}

function addExample(picture) {
  examples.push(picture);
  prompts = null;
  makeCard(picture, "examples", [
    ["Draw", () => open(picture, "Example")],
    ["Remove", () => {
      examples.splice(examples.indexOf(picture), 1);
      picture.card.remove();
      if (editor.picture === picture) find("editor").hidden = true;
      prompts = null;
      enable();
    }],
  ]);
  enable();
}

function addImage(picture) {
  images.push(picture);
  makeCard(picture, "images", [
    ["Correct", () => open(picture, "Correction of")],
    ["Make it an example", () => {
      const copy = new Picture(picture.file, picture.bitmap);
      copy.labels.set(picture.labels);
      addExample(copy);
      open(copy, "Example");
    }],
    ["Remove", () => {
      images.splice(images.indexOf(picture), 1);
      picture.card.remove();
      if (editor.picture === picture) find("editor").hidden = true;
      enable();
    }],
  ]);
  enable();
}

async function take(files, add) {
  const faults = [];
  for (const file of files) {
    try {
      const picture = await Picture.read(file);
      add(picture);
      if (add === addExample) open(picture, "Example");
    } catch (fault) {
      faults.push(fault.message);
    }
  }
  if (faults.length || !running) said(faults.join("; "), faults.length > 0);
}

function dropping(area, input, add) {
  const zone = find(area);
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    zone.addEventListener(kind, () => zone.classList.remove("over"));
  }
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    take([...event.dataTransfer.files], add);
  });
  find(input).addEventListener("change", async () => {
    await take([...find(input).files], add);
    find(input).value = "";
  });
}

// Segmenting

async function encode() {
  if (prompts) return prompts;
  const fields = [
    ["kind", find("kind").value],
    ["names", JSON.stringify(Object.fromEntries([...labels.keys()].map((k) => [k, nameOf(k)])))],
  ];
  for (const { file, name, labels, width, height, empty } of examples) {
    if (empty) continue;
    // Without colours a palette would be one of greys, which are read as values.
    const mask = await labelPng(labels, width, height, palette());
    fields.push(["image", file, name], ["mask", new Blob([mask]), `mask of ${name}.png`]);
  }
  const answer = await ask("api/prompts", fields);
  prompts = await answer.json();
  return prompts;
}

async function segment(picture) {
  picture.fault = "";
  let shown; // the prompts of this answer: an edit may drop them meanwhile
  const send = async () => {
    shown = await encode();
    const fields = [["image", picture.file, picture.name], ["prompts", shown.id]];
    return ask("api/segment", fields, { accept: "application/json" });
  };
  let answer;
  try {
    answer = await send();
  } catch (fault) {
    if (!(fault instanceof Fault) || fault.status !== 404) throw fault;
    if (prompts === shown) prompts = null; // the server has dropped them
    answer = await send();
  }
  const found = await answer.json();
  shown.categories = found.categories;
  picture.labels.fill(0);
  for (const note of found.annotations) paint(picture.labels, note);
  Object.assign(picture, { annotations: found.annotations, done: true });
  if (editor.picture === picture) editor.draw();
}

async function run() {
  running = true;
  // What was corrected by hand stays.
  const waiting = images.filter((picture) => !picture.done || picture.annotations);
  for (const picture of waiting) {
    picture.done = false;
    show(picture);
  }
  enable();
  let count = 0;
  const one = async () => {
    for (let picture; (picture = waiting.shift()); ) {
      try {
        await segment(picture);
        said(`${++count} segmented, ${waiting.length} wait`);
      } catch (fault) {
        picture.fault = fault.message;
      }
      show(picture);
    }
  };
  said("Encoding the examples ...");
  try {
    await encode();
    await Promise.all(Array.from({ length: TOGETHER }, one));
    const faults = images.filter((picture) => picture.fault).length;
    said(`${count} segmented` + (faults ? `, ${faults} failed` : ""), faults > 0);
  } catch (fault) {
    said(fault.message, true);
  }
  running = false;
  enable();
  for (const picture of images) show(picture);
}

// Downloads

function save(name, bytes) {
  const link = element("a", { href: URL.createObjectURL(new Blob([bytes])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Finished pictures with names that differ, by which results are named.
function finished() {
  const used = new Set();
  return images.filter((picture) => picture.done).map((picture) => {
    const stem = picture.name.replace(/\.[^.]*$/, "");
    let own = stem;
    for (let k = 2; used.has(own); k++) own = `${stem} (${k})`;
    used.add(own);
    return [own, picture];
  });
}

async function saveMasks() {
  const files = [];
  for (const [name, { labels, width, height }] of finished()) {
    const colors = { ...palette(), ...prompts?.palette }; // a correction may have more labels
    files.push([`${name}.png`, await labelPng(labels, width, height, colors)]);
  }
  save("masks.zip", zip(files));
}

function saveCoco() {
  // The server's, and those of labels that only corrections have.
  const known = [...(prompts?.categories ?? [])];
  for (const name of [...labels.keys()].map(nameOf)) {
    if (known.some((category) => category.name === name)) continue;
    known.push({ id: Math.max(0, ...known.map((category) => category.id)) + 1, name });
  }
  const set = dataSet(finished().map(([, picture]) => picture), known, nameOf);
  save("coco.zip", zip([["coco.json", new TextEncoder().encode(JSON.stringify(set))]]));
}

// A file that is dropped beside the areas would be opened in place of this page.
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => {
    if (event.defaultPrevented || !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
}
// Nothing is kept: a browser asks before what was drawn or found is lost.
window.addEventListener("beforeunload", (event) => {
  if (examples.some((picture) => !picture.empty) || images.some((picture) => picture.done)) {
    event.preventDefault();
  }
});
dropping("drop-examples", "examples-input", addExample);
dropping("drop-images", "images-input", addImage);
find("add-label").addEventListener("click", addLabel);
find("run").addEventListener("click", run);
find("masks").addEventListener("click", saveMasks);
find("coco").addEventListener("click", saveCoco);
find("kind").addEventListener("change", () => {
  prompts = null;
});
addLabel();
const model = await (await fetch("api/model")).json();
find("model").textContent = `${model.model}, ${model.device}`;
