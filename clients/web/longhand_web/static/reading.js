// Shows one reading: its words coloured by confidence, their places in the image, the other readings.

const $ = (id) => document.getElementById(id);
const percent = (value) => `${Math.round(100 * value)} %`;
let shown = null; // { name, url, reading, text }

export function show(item) {
  shown = { ...item, text: item.reading.text };
  $("result").hidden = false;
  $("shown").src = item.url;
  $("shown").alt = `The image that was read: ${item.name}`;
  $("mark").hidden = true;
  const { reading } = item;
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
  if (!reading.text) text.textContent = "(nothing is written on it)";
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
  const place = $("mark");
  place.style.left = `${100 * word.x_start / reading.image_width}%`;
  place.style.width = `${100 * (word.x_end - word.x_start) / reading.image_width}%`;
  place.hidden = false;
}

function showAlternatives(reading) {
  const list = $("alternatives");
  list.replaceChildren();
  $("others").hidden = reading.alternatives.length < 2;
  reading.alternatives.forEach((alternative, index) => {
    const button = document.createElement("button");
    button.textContent = `${alternative.text || "(nothing)"}  — ${percent(alternative.confidence)}`;
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

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const stem = () => shown.name.replace(/\.[^.]*$/, "") || "line";

async function copy(button) {
  try {
    await navigator.clipboard.writeText(shown.text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed here";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

export function start() {
  $("copy").addEventListener("click", () => copy($("copy")));
  $("save-text").addEventListener("click", () => save(`${stem()}.txt`, `${shown.text}\n`, "text/plain"));
  $("save-json").addEventListener("click", () => {
    save(`${stem()}.json`, JSON.stringify({ file: shown.name, ...shown.reading }, null, 1), "application/json");
  });
}
