// Talks to the gateway. Every failure becomes an Error whose message is meant for people.

const PLAIN = {
  INVALID_IMAGE: "This file is not a readable picture of a line",
  IMAGE_TOO_LARGE: "This image is too large",
  OVERLOADED: "The server has too much to do right now; try again in a moment",
  RATE_LIMITED: "Too many requests; try again in a moment",
  UNAVAILABLE: "The recognition server is not running or cannot be reached",
  SHUTTING_DOWN: "The recognition server is just being restarted",
  DEADLINE_EXCEEDED: "The server took too long",
  NO_GATEWAY: "This page has lost its own server; is `make web` still running?",
};

const AWAY = 503; // HTTP: not there
const PASSING = [429, AWAY, 504]; // and too much to do, too slow

export class ReadingError extends Error {
  constructor(message, passing = false, away = false) {
    super(message);
    this.passing = passing; // whether the same image may be read another time
    this.away = away; // whether any other image would fail now, too
  }
}

export async function status() {
  const answer = await fetch("/api/status", { cache: "no-store" });
  if (!answer.ok) throw new ReadingError("the gateway answered " + answer.status);
  return answer.json();
}

export async function recognize(image, options) {
  const query = new URLSearchParams();
  if (options.decoder) query.set("decoder", options.decoder);
  if (options.weight !== 1) query.set("lm_weight", options.weight);
  // Read first: fetch says of a file that has changed what it says of a gateway that is gone.
  let body, answer;
  try {
    body = await image.arrayBuffer();
  } catch {
    throw new ReadingError("The file has changed or cannot be read; choose it again.");
  }
  try {
    answer = await fetch("/api/recognize?" + query, {
      method: "POST", body, headers: { "content-type": "application/octet-stream" },
    });
  } catch {
    throw new ReadingError(PLAIN.NO_GATEWAY, true, true);
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const { reason, message } = content.error ?? { reason: "", message: `the gateway answered ${answer.status}` };
  const plain = PLAIN[reason];
  const text = plain ? `${plain}${reason.includes("IMAGE") ? ` (${message})` : ""}.` : message;
  throw new ReadingError(text, PASSING.includes(answer.status), answer.status === AWAY);
}

// The image as the server read it, where that turned it; otherwise, or where the browser cannot show it, null.
export async function turned(file, degrees) {
  const picture = degrees ? await createImageBitmap(file).catch(() => null) : null;
  if (!picture) return null;
  const canvas = document.createElement("canvas");
  const { width, height } = picture;
  [canvas.width, canvas.height] = degrees === 180 ? [width, height] : [height, width];
  const pen = canvas.getContext("2d");
  pen.translate(canvas.width / 2, canvas.height / 2);
  pen.rotate(degrees * Math.PI / 180);
  pen.drawImage(picture, -width / 2, -height / 2);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A photo can be larger than the gateway takes; a line needs far fewer pixels than a camera has.
export async function shrink(file, limits) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return file; // the server says what is wrong with it
  }
  const scale = Math.sqrt(limits.max_image_pixels / (picture.width * picture.height));
  if (scale >= 1 && file.size <= limits.max_image_bytes) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(Math.floor(picture.width * Math.min(scale, 1)), 1);
  canvas.height = Math.max(Math.floor(picture.height * Math.min(scale, 1)), 1);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // JPEG has no transparency: what is not painted turns black
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob((blob) => done(blob ?? file), "image/jpeg", 0.92));
}
