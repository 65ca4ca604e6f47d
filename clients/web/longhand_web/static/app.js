// The page: takes images from everywhere, reads them one after the other, lists them.

import { recognize, shrink, status } from "/api.js";
import { Pad } from "/pad.js";
import { save, show, start } from "/reading.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 4;
const items = []; // { name, url, image, reading, problem, row }
const waiting = [];
let running = 0;
let limits = { max_image_bytes: 4 * 1024 * 1024, max_image_pixels: 3_000_000 };

function say(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

function options() {
  return { decoder: $("decoder").value, weight: Number($("weight").value) };
}

function add(files) {
  const images = [...files].filter((file) => file.size > 0 || file.name);
  if (!images.length) return;
  say("");
  for (const file of images) {
    const item = { name: file.name || "pasted image", image: file, url: URL.createObjectURL(file) };
    items.push(item);
    waiting.push(item);
  }
  list();
  work();
}

function work() {
  while (running < AT_ONCE && waiting.length) {
    running++;
    read(waiting.shift()).finally(() => { running--; work(); });
  }
}

async function read(item) {
  try {
    item.reading = await recognize(await shrink(item.image, limits), options());
    item.problem = "";
    if (items.at(-1) === item || items.length === 1) bring(item);
  } catch (error) {
    item.reading = null;
    item.problem = error.message;
    if (items.length === 1) {
      say(item.problem);
      $("problem").scrollIntoView({ block: "nearest" });
    }
  }
  list();
}

// Shows a reading where it can be seen: on a phone it stands below the fold.
function bring(item) {
  show(item);
  $("result").scrollIntoView({ block: "nearest" });
}

function list() {
  const finished = items.filter((item) => item.reading || item.problem !== undefined);
  $("batch").hidden = items.length < 2;
  $("progress").max = Math.max(items.length, 1);
  $("progress").value = finished.length;
  const failed = items.filter((item) => item.problem).length;
  $("count").textContent = `${finished.length} of ${items.length}${failed ? `, ${failed} could not be read` : ""}`;
  for (const item of items) {
    item.row ??= newRow(item);
    const [text, sure] = item.row.querySelectorAll(".text, .sure");
    text.className = item.problem ? "text failed" : "text";
    if (item.reading && !text.querySelector("button")) {
      const button = document.createElement("button");
      button.addEventListener("click", () => bring(item));
      text.replaceChildren(button);
    }
    const target = text.querySelector("button") ?? text;
    target.textContent = item.problem || (item.reading ? item.reading.text || "(nothing)" : "…");
    sure.textContent = item.reading ? `${Math.round(100 * item.reading.confidence)} %` : "";
  }
}

function newRow(item) {
  const row = document.createElement("tr");
  const picture = document.createElement("img");
  picture.src = item.url;
  picture.alt = "";
  for (const name of ["picture", "name", "text", "sure"]) {
    const cell = document.createElement("td");
    cell.className = name;
    row.append(cell);
  }
  row.children[0].append(picture);
  row.children[1].textContent = item.name;
  $("rows").append(row);
  return row;
}

function forget() {
  waiting.length = 0;
  for (const item of items.splice(0)) {
    item.row?.remove();
    URL.revokeObjectURL(item.url);
  }
  $("result").hidden = true;
  say("");
  list();
}

function saveTable() {
  const clean = (text) => text.replace(/[\t\r\n]+/g, " ");
  const rows = items.map((item) => [item.name, item.reading?.confidence.toFixed(4) ?? "",
    item.reading?.text ?? `ERROR: ${item.problem}`].map((field) => clean(String(field))).join("\t"));
  save("longhand.tsv", ["file\tconfidence\ttext", ...rows, ""].join("\n"), "text/tab-separated-values");
}

async function readPad(pad) {
  if (pad.empty) { say("Write something first."); return; }
  const image = await pad.image();
  forget();
  add([new File([image], "writing.png", { type: "image/png" })]);
}

async function watchServer() {
  const place = $("status");
  try {
    const now = await status();
    limits = now.limits;
    place.dataset.state = now.ready ? "ready" : "away";
    place.textContent = now.ready
      ? `Ready: model ${now.model.name} ${now.model.version} on ${now.model.device}`
      : "The recognition server does not answer; trying again …";
    if (now.ready) $("weight").disabled = !now.model.has_language_model;
  } catch {
    place.dataset.state = "away";
    place.textContent = "This page has lost its own server; trying again …";
  }
  setTimeout(watchServer, place.dataset.state === "ready" ? 10_000 : 2_000);
}

function startTabs() {
  const tabs = [$("tab-image"), $("tab-write")];
  const select = (tab) => tabs.forEach((one) => {
    const on = one === tab;
    one.setAttribute("aria-selected", String(on));
    one.tabIndex = on ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !on;
  });
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
      const next = tabs[(index + 1) % tabs.length];
      select(next);
      next.focus();
    });
  });
}

function startSources() {
  for (const [button, input] of [["choose", "files"], ["photo", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => { add($(input).files); $(input).value = ""; });
  }
  $("sample").addEventListener("click", async () => {
    const answer = await fetch("/sample.png").catch(() => null);
    if (answer?.ok) add([new File([await answer.blob()], "sample.png", { type: "image/png" })]);
  });
  addEventListener("paste", (event) => { if (event.clipboardData?.files.length) add(event.clipboardData.files); });
  // The whole window takes drops, so that a near miss does not open the image instead of the page.
  addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    add(event.dataTransfer?.files ?? []);
  });
}

function startOptions() {
  const again = () => {
    const value = Number($("weight").value);
    $("weight-value").textContent = value === 1 ? "as tuned" : value === 0 ? "off" : `× ${value}`;
    waiting.splice(0, waiting.length, ...items);
    for (const item of items) item.problem = item.reading = undefined;
    list();
    work();
  };
  for (const id of ["decoder", "weight"]) $(id).addEventListener("change", again);
}

const pad = new Pad($("pad"), () => readPad(pad));
$("read").addEventListener("click", () => readPad(pad));
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => { pad.clear(); forget(); });
$("save-tsv").addEventListener("click", saveTable);
$("forget").addEventListener("click", forget);
start();
startTabs();
startSources();
startOptions();
watchServer();
document.documentElement.dataset.ready = "true";
