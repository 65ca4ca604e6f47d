// The page: takes images from everywhere, reads them one after the other, lists them.

import { recognize, shrink, status, turned } from "/api.js";
import { Pad } from "/pad.js";
import { percent, save, show, start, unseen } from "/reading.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 4;
const NO_SERVER = "The recognition server does not answer; trying again …";
const items = []; // { name, url, image, reading, upright, problem, passing, row, turn }
const waiting = [];
let inView = null; // the item that was added or chosen last
let written = null; // the item of what stands on the writing pad
let running = 0;
let held = false; // the server is away: what waits is not sent only to fail
let nextLook; // at the server
let limits = { max_image_bytes: 4 * 1024 * 1024, max_image_pixels: 3_000_000 };

function say(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

// Live regions are read aloud whenever they are written, even where they say what they said before.
function tell(place, text) {
  if (place.textContent !== text) place.textContent = text;
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
  }
  inView = items.at(-1);
  enqueue(items.slice(-images.length));
}

function enqueue(some) {
  for (const item of some) {
    item.turn = (item.turn ?? 0) + 1;
    item.problem = item.reading = undefined;
    if (!waiting.includes(item)) waiting.push(item);
  }
  list();
  work();
}

function work() {
  while (!held && running < AT_ONCE && waiting.length) {
    running++;
    read(waiting.shift()).finally(() => { running--; work(); });
  }
}

async function read(item) {
  const { turn } = item; // it may be wanted again, otherwise, before the answer comes; then that does not count
  try {
    const reading = await recognize(await shrink(item.image, limits), options());
    const upright = await turned(item.image, reading.rotation);
    if (item.turn !== turn) return;
    item.reading = reading;
    free(item.upright);
    item.upright = upright && URL.createObjectURL(upright);
    item.problem = "";
    if (item === inView) bring(item);
  } catch (error) {
    if (error.away) hold();
    if (item.turn !== turn) return;
    item.reading = null;
    item.problem = error.message;
    item.passing = error.passing;
    if (item === inView) {
      say(items.length > 1 ? `${item.name}: ${item.problem}` : item.problem);
      $("problem").scrollIntoView({ block: "nearest" });
    }
  }
  list();
}

// Shows a reading where it can be seen: on a phone it stands below the fold. Who still writes keeps the pad, though.
function bring(item) {
  show(item);
  if (!item.growing) $("result").scrollIntoView({ block: "nearest" });
}

function list() {
  const finished = items.filter((item) => item.reading || item.problem !== undefined);
  $("batch").hidden = items.length < 2;
  $("progress").max = Math.max(items.length, 1);
  $("progress").value = finished.length;
  const open = items.length - finished.length;
  const doing = held ? "Waiting for the server to read" : "Reading";
  tell($("busy"), open ? `${doing} ${open === 1 ? "one image" : `${open} images`} …` : "");
  const failed = items.filter((item) => item.problem).length;
  const later = again().length;
  $("retry").hidden = open > 0 || later === 0;
  $("again").textContent = later === 1 ? "Try the failed image again" : `Try ${later} failed images again`;
  $("count").textContent = `${finished.length} of ${items.length}${failed ? `, ${failed} could not be read` : ""}`;
  for (const item of items) {
    item.row ??= newRow(item);
    if (item === inView) item.row.setAttribute("aria-current", "true");
    else item.row.removeAttribute("aria-current");
    const [text, sure] = item.row.querySelectorAll(".text, .sure");
    text.className = item.problem ? "text failed" : "text";
    if (item.reading && !text.querySelector("button")) {
      const button = document.createElement("button");
      button.addEventListener("click", () => {
        inView = item;
        item.growing = false;
        say("");
        if (item.reading) bring(item);
        list();
      });
      text.replaceChildren(button);
    }
    const target = text.querySelector("button") ?? text;
    target.textContent = item.problem || (item.reading ? item.reading.text || "(nothing)" : "…");
    sure.textContent = item.reading ? percent(item.reading.confidence) : "";
  }
}

function again() {
  return items.filter((item) => item.problem && item.passing);
}

function newRow(item) {
  const row = document.createElement("tr");
  for (const name of ["picture", "name", "text", "sure"]) {
    const cell = document.createElement("td");
    cell.className = name;
    row.append(cell);
  }
  row.children[1].textContent = item.name;
  $("rows").append(row);
  picture(item, row);
  return row;
}

function picture(item, row) {
  const image = document.createElement("img");
  image.src = item.url;
  image.alt = "";
  image.addEventListener("error", () => image.replaceWith(unseen(item)));
  row.children[0].replaceChildren(image);
}

function free(url) {
  if (url) URL.revokeObjectURL(url);
}

function forget() {
  waiting.length = 0;
  for (const item of items.splice(0)) {
    item.row?.remove();
    free(item.url);
    free(item.upright);
  }
  inView = written = null;
  $("result").hidden = true;
  say("");
  list();
}

function saveTable() {
  const clean = (text) => text.replace(/[\t\r\n]+/g, " ");
  const rows = items.map((item) => [item.name, item.reading?.confidence.toFixed(4) ?? "",
    item.reading?.text ?? (item.problem ? `ERROR: ${item.problem}` : "")].map((field) => clean(String(field))).join("\t"));
  save("longhand.tsv", ["file\tconfidence\ttext", ...rows, ""].join("\n"), "text/tab-separated-values");
}

async function readPad(pad, growing) {
  if (pad.empty) { say("Write something first."); return; }
  const image = new File([await pad.image()], "writing.png", { type: "image/png" });
  if (!written) {
    add([image]);
    written = inView;
    written.growing = growing;
    return;
  }
  // Each pause reads what stands there so far: it is one line that grows, not several.
  say("");
  free(written.url);
  written.image = image;
  written.url = URL.createObjectURL(image);
  picture(written, written.row);
  written.growing = growing;
  inView = written;
  enqueue([written]);
}

function clearPad(pad) {
  pad.clear();
  if (items.length === 1 && items[0] === written) forget();
  written = null;
}

async function watchServer() {
  const place = $("status");
  try {
    const now = await status();
    limits = now.limits;
    if (now.ready) {
      place.dataset.state = "ready";
      tell(place, `Ready: model ${now.model.name} ${now.model.version} on ${now.model.device}`);
      $("weight").disabled = !now.model.has_language_model;
      release();
    } else away(NO_SERVER);
  } catch {
    away("This page has lost its own server; trying again …");
  }
  lookAgain();
}

function lookAgain() {
  clearTimeout(nextLook);
  nextLook = setTimeout(watchServer, $("status").dataset.state === "ready" ? 10_000 : 2_000);
}

function away(message) {
  $("status").dataset.state = "away";
  tell($("status"), message);
}

// What waits is read as soon as the server is back.
function hold() {
  held = true;
  away(NO_SERVER);
  lookAgain();
}

function release() {
  if (!held) return;
  held = false;
  list();
  work();
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
    say("");
    enqueue(items);
  };
  for (const id of ["decoder", "weight"]) $(id).addEventListener("change", again);
}

const pad = new Pad($("pad"), () => readPad(pad, true));
$("read").addEventListener("click", () => readPad(pad, false));
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => clearPad(pad));
$("save-tsv").addEventListener("click", saveTable);
$("forget").addEventListener("click", forget);
$("again").addEventListener("click", () => { say(""); enqueue(again()); });
start();
startTabs();
startSources();
startOptions();
watchServer();
document.documentElement.dataset.ready = "true";
