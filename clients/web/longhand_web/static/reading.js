// Shows one reading: its words coloured by confidence, their places in the image, the other readings.

const $ = (id) => document.getElementById(id);
const LOWEST = 48; // px: how high a line is at least shown, and scrolled sideways where it is too long for that
export const percent = (value) => `${Math.round(100 * value)}\u00a0%`; // never on two lines
let shown = null; // { name, url, reading, text }

export function show(item) {
  shown = { ...item, text: item.reading.text };
  const { reading } = item;
  $("result").hidden = false;
  $("picture").hidden = false;
  $("unseen").hidden = $("mark").hidden = true;
  $("unseen").textContent = unseen(item);
  $("shown").src = item.url;
  $("shown").alt = `The image that was read: ${item.name}`;
  const lowest = Math.min(LOWEST, reading.image_height);
  $("shown").style.minWidth = `${lowest * reading.image_width / reading.image_height}px`;
  $("legend").hidden = !reading.words.length;
  const time = reading.timings;
  $("facts").textContent =
    `${item.name} · ${percent(reading.confidence)} sure · ${Math.round(time.total_ms)} ms on the server ` +
    `(network ${Math.round(time.infer_ms)} ms) · model ${reading.model} ${reading.model_version}`;
  showWords(reading);
  showAlternatives(reading);
}

function showWords(reading) {
  const text = $("text");
  text.replaceChildren();
  if (!reading.text) {
    // Of a blank line the model is sure; a page or a turned line comes out empty, too, but it doubts that.
    text.textContent = reading.confidence < 0.9
      ? "(nothing could be read: is it one line, upright?)" : "(nothing is written on it)";
  }
  for (const word of reading.words) {
    const button = document.createElement("button");
    button.className = `word c${Math.min(Math.floor(word.confidence * 5), 4)}`;
    button.textContent = word.text;
    button.title = `${percent(word.confidence)} sure`;
    for (const name of ["pointerenter", "focus", "click"]) button.addEventListener(name, () => mark(word, reading));
    for (const name of ["pointerleave", "blur"]) button.addEventListener(name, () => { $("mark").hidden = true; });
    text.append(button, " ");
  }
}

function mark(word, reading) {
  const [place, line, picture] = [$("mark"), $("shown"), $("picture")];
  const scale = line.offsetWidth / reading.image_width;
  place.style.left = `${word.x_start * scale}px`;
  place.style.width = `${(word.x_end - word.x_start) * scale}px`;
  place.hidden = false;
  picture.scrollLeft = (word.x_start + word.x_end) / 2 * scale - picture.clientWidth / 2;
}

function showAlternatives(reading) {
  const list = $("alternatives");
  list.replaceChildren();
  $("others").hidden = reading.alternatives.length < 2;
  reading.alternatives.forEach((alternative, index) => {
    const button = document.createElement("button");
    button.textContent = `${alternative.text || "(nothing)"}  —\u00a0${percent(alternative.confidence)}`;
    button.setAttribute("aria-pressed", String(index === 0));
    button.addEventListener("click", () => choose(alternative, index, button));
    const entry = document.createElement("li");
    entry.append(button);
    list.append(entry);
  });
}

function choose(alternative, index, button) {
  shown.text = alternative.text;
  for (const other of $("alternatives").querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", "true");
  // Only the best reading has places and confidences of its words.
  if (index === 0) showWords(shown.reading);
  else $("text").textContent = alternative.text;
}

// What stands in the place of an image that the browser cannot show, though the server may read it.
export const unseen = (item) => `Your browser cannot show ${item.name}`;

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const stem = () => shown.name.replace(/\.[^.]*$/, "") || "line";

// Over plain HTTP from another machine, as from a phone, a page has no clipboard object.
function copyAsBefore(text, button) {
  const field = document.createElement("textarea");
  field.className = "hidden";
  field.value = text;
  button.after(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  button.focus();
  if (!copied) throw new Error("not allowed");
}

async function copy(button) {
  try {
    await (navigator.clipboard ? navigator.clipboard.writeText(shown.text) : copyAsBefore(shown.text, button));
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed here";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

export function start() {
  // What scrolls must be within the keyboard's reach.
  $("shown").addEventListener("load", () => {
    $("picture").tabIndex = $("picture").scrollWidth > $("picture").clientWidth ? 0 : -1;
  });
  $("shown").addEventListener("error", () => { $("picture").hidden = true; $("unseen").hidden = false; });
  $("copy").addEventListener("click", () => copy($("copy")));
  $("save-text").addEventListener("click", () => save(`${stem()}.txt`, `${shown.text}\n`, "text/plain"));
  $("save-json").addEventListener("click", () => {
    save(`${stem()}.json`, JSON.stringify({ file: shown.name, ...shown.reading }, null, 1), "application/json");
  });
}
