// Shows one reading: its words coloured by confidence, their places in the image, the other readings.

const $ = (id) => document.getElementById(id);
// px: a line of which the whole width fits at SMALLEST is shown whole; a longer one LOWEST high, and scrolled sideways.
const [SMALLEST, LOWEST] = [32, 48];
export const percent = (value) => `${Math.round(100 * value)}\u00a0%`; // never on two lines
let shown = null; // { name, url, upright, reading, text }

export function show(item) {
  shown = { ...item, text: item.reading.text };
  const { reading } = item;
  $("result").hidden = false;
  $("picture").hidden = false;
  $("unseen").hidden = true;
  $("unseen").textContent = unseen(item);
  $("shown").src = item.upright || item.url;
  $("shown").alt = `The image that was read: ${item.name}`;
  $("picture").scrollLeft = 0;
  fit();
  showBest();
  showAlternatives(reading);
}

function fit() {
  const { image_width: width, image_height: height } = shown.reading;
  const small = $("text").clientWidth * height / width < SMALLEST;
  $("shown").style.minWidth = small ? `${Math.min(LOWEST, height) * width / height}px` : "";
  edges();
}

// What scrolls must be within the keyboard's reach, and show that there is more of it.
function edges() {
  const picture = $("picture");
  const more = picture.scrollWidth - picture.clientWidth;
  picture.tabIndex = more > 0 ? 0 : -1;
  picture.classList.toggle("more-left", picture.scrollLeft > 1);
  picture.classList.toggle("more-right", picture.scrollLeft < more - 1);
}

function showFacts(confidence) {
  const { reading } = shown;
  // Of a blank line the model is sure; a page may come out empty, too, but it doubts that.
  const unread = !reading.text && reading.confidence < 0.9;
  const sure = unread ? [] : [`${percent(confidence)} sure of the whole line`];
  const turn = reading.rotation ? [`turned by ${reading.rotation}°`] : [];
  const time = reading.timings;
  $("facts").textContent = [
    shown.name, ...turn, ...sure, `${Math.round(time.total_ms)} ms on the server (network ${Math.round(time.infer_ms)} ms)`,
    `model ${reading.model} ${reading.model_version}`,
  ].join(" · ");
  for (const name of ["copy", "save-text"]) $(name).disabled = !shown.text;
  return unread;
}

function showBest() {
  const { reading } = shown;
  const text = $("text");
  text.replaceChildren();
  unmark();
  const unread = showFacts(reading.confidence);
  if (!reading.text) {
    text.textContent = unread ? "(nothing could be read)" : "(nothing is written on it)";
  }
  // A page comes out as an odd word or two, or as nothing. A line is far wider than high.
  const odd = reading.text && reading.confidence <= 0.8 && reading.image_width <= 3 * reading.image_height;
  $("hint").hidden = !odd && !unread;
  $("legend").hidden = !reading.words.length;
  for (const word of reading.words) {
    const button = document.createElement("button");
    button.className = `word c${Math.min(Math.floor(word.confidence * 5), 4)}`;
    button.textContent = word.text;
    button.title = `${percent(word.confidence)} sure`;
    for (const name of ["pointerenter", "focus", "click"]) button.addEventListener(name, () => mark(word, reading));
    for (const name of ["pointerleave", "blur"]) button.addEventListener(name, unmark);
    text.append(button, " ");
  }
}

function mark(word, reading) {
  const [place, line, picture] = [$("mark"), $("shown"), $("picture")];
  const scale = line.offsetWidth / reading.image_width;
  place.style.left = `${word.x_start * scale}px`;
  place.style.width = `${(word.x_end - word.x_start) * scale}px`;
  place.hidden = false;
  $("marked").textContent = ` · this word: ${percent(word.confidence)}`;
  picture.scrollLeft = (word.x_start + word.x_end) / 2 * scale - picture.clientWidth / 2;
}

function unmark() {
  $("mark").hidden = true;
  $("marked").textContent = "";
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
  if (index === 0) {
    showBest();
    return;
  }
  $("text").textContent = alternative.text || "(nothing)";
  $("legend").hidden = true;
  unmark();
  showFacts(alternative.confidence);
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
  $("shown").addEventListener("load", edges);
  $("picture").addEventListener("scroll", edges);
  addEventListener("resize", () => { if (shown) fit(); });
  $("shown").addEventListener("error", () => { $("picture").hidden = true; $("unseen").hidden = false; });
  $("copy").addEventListener("click", () => copy($("copy")));
  $("save-text").addEventListener("click", () => save(`${stem()}.txt`, `${shown.text}\n`, "text/plain"));
  $("save-json").addEventListener("click", () => {
    save(`${stem()}.json`, JSON.stringify({ file: shown.name, ...shown.reading }, null, 1), "application/json");
  });
}
