// The writing area: strokes with mouse, pen or finger, and the image that they make.

const INK = "#1b2340";

export class Pad {
  constructor(canvas, onPause) {
    this.canvas = canvas;
    this.strokes = [];
    this.current = null;
    this.onPause = onPause;
    this.timer = 0;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
    new ResizeObserver(() => this.fit()).observe(canvas);
  }

  get empty() { return this.strokes.length === 0; }

  fit() {
    const scale = window.devicePixelRatio || 1;
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width) return;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.draw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    clearTimeout(this.timer);
    this.current = [this.point(event)];
    this.strokes.push(this.current);
    this.draw();
  }

  move(event) {
    if (!this.current) return;
    // A fast pen moves several times between two frames; every place counts.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.current.push(this.point(one));
    this.draw();
  }

  end() {
    if (!this.current) return;
    this.current = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.onPause(), 1200);
  }

  undo() { this.strokes.pop(); this.draw(); }

  clear() { this.strokes = []; clearTimeout(this.timer); this.draw(); }

  draw() {
    const scale = window.devicePixelRatio || 1;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const { width, height } = this.canvas.getBoundingClientRect();
    pen.strokeStyle = "#dfe4ee";
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(12, height * 0.68);
    pen.lineTo(width - 12, height * 0.68);
    pen.stroke();
    paint(pen, this.strokes, 0, 0, 1);
  }

  // The strokes alone (without the guide line), cropped, on white.
  async image() {
    const points = this.strokes.flat();
    const xs = points.map((point) => point[0]);
    const ys = points.map((point) => point[1]);
    const [left, top] = [Math.min(...xs) - 16, Math.min(...ys) - 16];
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil((Math.max(...xs) - left + 16) * 2);
    canvas.height = Math.ceil((Math.max(...ys) - top + 16) * 2);
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    paint(pen, this.strokes, left, top, 2);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

function paint(pen, strokes, left, top, scale) {
  pen.strokeStyle = INK;
  pen.lineWidth = 2.6 * scale;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    const place = ([x, y]) => [(x - left) * scale, (y - top) * scale];
    pen.moveTo(...place(stroke[0]));
    if (stroke.length === 1) pen.lineTo(...place([stroke[0][0] + 0.1, stroke[0][1]]));
    // Curves through the middles of the segments hide the corners of fast strokes.
    for (let i = 1; i < stroke.length; i++) {
      const middle = [(stroke[i - 1][0] + stroke[i][0]) / 2, (stroke[i - 1][1] + stroke[i][1]) / 2];
      pen.quadraticCurveTo(...place(stroke[i - 1]), ...place(middle));
    }
    pen.lineTo(...place(stroke[stroke.length - 1]));
    pen.stroke();
  }
}
