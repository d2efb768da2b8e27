// A chart's window of time, its canvas, and how mouse, touch and keys move it. The charts themselves only draw.

const HINT = "Drag to move. Click, then turn the wheel to zoom; keys: arrows, + and -, Home. Times in UTC.";
const LOG_FROM = 4; // a range of values this wide starts on a logarithmic scale
const AXIS_WIDTH = 62, AXIS_HEIGHT = 22;

function wideRange(low, high) {
  return low > 0 && high / low > LOG_FROM;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

class Chart {
  // `span`: [first, last] ms; `shortest`: of the window, ms.
  constructor(figure, span, shortest) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.tip = figure.querySelector(".tip");
    this.readout = figure.querySelector(".readout");
    this.caption = figure.querySelector("figcaption");
    this.hover = null;
    this.pointers = new Map();
    this.setSpan(span, shortest);
    this.listen();
  }

  setSpan(span, shortest) {
    this.span = span[1] > span[0] ? span : [span[0], span[0] + shortest];
    this.shortest = Math.min(shortest, this.span[1] - this.span[0]);
    this.from = this.span[0];
    this.to = this.span[1];
  }

  show(from, to) {
    const whole = this.span[1] - this.span[0], width = Math.min(whole, Math.max(this.shortest, to - from));
    const middle = (from + to) / 2;
    this.from = Math.min(this.span[1] - width, Math.max(this.span[0], middle - width / 2));
    this.to = this.from + width;
    this.redraw();
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    const width = Math.min(this.span[1] - this.span[0], Math.max(this.shortest, (this.to - this.from) * factor));
    const share = (at - this.from) / (this.to - this.from), from = at - share * width;
    this.show(from, from + width);
  }

  setLog(on) {
    this.log = on;
    this.figure.querySelector('[data-act="log"]').setAttribute("aria-pressed", on);
    this.redraw();
  }

  pan(share) {
    const by = share * (this.to - this.from);
    this.show(this.from + by, this.to + by);
  }

  act(name) {
    const moves = { log: () => this.setLog(!this.log), in: () => this.zoom(0.5), out: () => this.zoom(2), left: () => this.pan(-0.4), right: () => this.pan(0.4), all: () => this.show(...this.span) };
    if (moves[name]) moves[name]();
    return name in moves;
  }

  key(event) {
    const names = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "=": "in", "-": "out", Home: "all", 0: "all", n: "next", p: "prev" };
    const name = names[event.key];
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.act(name);
  }

  listen() {
    const c = this.canvas;
    for (const button of this.figure.querySelectorAll("button[data-act]")) button.addEventListener("click", () => this.act(button.dataset.act));
    c.addEventListener("keydown", (e) => this.key(e));
    c.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    c.addEventListener("dblclick", (e) => this.zoom(0.5, this.timeAt(e.offsetX)));
    c.addEventListener("pointerdown", (e) => this.down(e));
    c.addEventListener("pointermove", (e) => this.move(e));
    for (const name of ["pointerup", "pointercancel"]) c.addEventListener(name, (e) => this.pointers.delete(e.pointerId));
    c.addEventListener("pointerleave", () => { this.hover = null; this.redraw(); });
    new ResizeObserver(() => this.redraw()).observe(c);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  // The page scrolls under a wheel; the chart zooms once it was clicked, or with Ctrl or Shift held.
  wheel(event) {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!sideways && !event.ctrlKey && !event.shiftKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    if (sideways && !event.shiftKey) this.pan(event.deltaX / this.width);
    else this.zoom(1.0015 ** (event.deltaY || event.deltaX), this.timeAt(event.offsetX));
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event.offsetX);
    this.hover = { x: event.offsetX, y: event.offsetY };
    this.redraw();
  }

  move(event) {
    this.hover = { x: event.offsetX, y: event.offsetY };
    const held = this.pointers.get(event.pointerId);
    if (held === undefined) return this.redraw();
    const other = [...this.pointers].find(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, event.offsetX);
    if (other) {
      const before = Math.abs(held - other[1]), now = Math.abs(event.offsetX - other[1]);
      if (before > 10 && now > 10) this.zoom(before / now, this.timeAt((event.offsetX + other[1]) / 2));
    } else this.pan((held - event.offsetX) / this.width);
  }

  timeAt(x) { return this.from + (x / this.width) * (this.to - this.from); }
  x(t) { return ((t - this.from) / (this.to - this.from)) * this.width; }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }

  paint() {
    const box = this.canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    if (box.width < 50) return;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    this.width = box.width - AXIS_WIDTH;
    this.height = box.height - AXIS_HEIGHT;
    const g = this.canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = "11.5px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    this.g = g;
    this.tip.hidden = true;
    this.draw(g);
  }

  clipped(top, bottom, drawing) {
    const g = this.g;
    g.save();
    g.beginPath();
    g.rect(0, top, this.width, bottom - top);
    g.clip();
    drawing();
    g.restore();
  }

  timeAxis() {
    const g = this.g, { ticks, name } = timeTicks(this.from, this.to, this.width / 75);
    g.textAlign = "center";
    g.textBaseline = "middle";
    let named = false; // the first label says the whole date
    for (const t of ticks) {
      const x = Math.round(this.x(t)) + 0.5;
      g.strokeStyle = colour("grid");
      line(g, x, 0, x, this.height);
      g.fillStyle = colour("soft");
      const text = name(t, !named), half = g.measureText(text).width / 2;
      if (x - half < 0 || x + half > this.width + AXIS_WIDTH) continue;
      g.fillText(text, x, this.height + AXIS_HEIGHT / 2 + 2);
      named = true;
    }
  }

  valueAxis({ ticks, decimals }, y, text = (v) => num(v, decimals)) {
    const g = this.g;
    g.textAlign = "left";
    g.textBaseline = "middle";
    for (const v of ticks) {
      const at = Math.round(y(v)) + 0.5;
      if (at < 7) continue;
      g.strokeStyle = colour("grid");
      line(g, 0, at, this.width, at);
      g.fillStyle = colour("soft");
      g.fillText(text(v), this.width + 6, at);
    }
  }

  // From values to pixels between `from` and `to`, with `air` above and below, and the axis drawn for it.
  scaleTo(low, high, from, to, air) {
    const log = this.log && low > 0, f = log ? Math.log : (v) => v;
    const pad = (f(high) - f(low)) * air || Math.abs(f(high)) * 0.01 || 1, top = f(high) + pad, bottom = f(low) - pad;
    const y = (v) => from + ((top - f(v)) / (top - bottom)) * (to - from);
    const ends = log ? [Math.exp(bottom), Math.exp(top)] : [bottom, top];
    this.valueAxis((log ? logTicks : valueTicks)(...ends, (to - from) / 45), y);
    return y;
  }

  cross(x) {
    this.g.strokeStyle = colour("faint");
    this.g.setLineDash([3, 3]);
    line(this.g, x, 0, x, this.height);
    this.g.setLineDash([]);
  }

  showTip(text, x, y) {
    this.tip.textContent = text;
    this.tip.hidden = false;
    const right = x + 14 + this.tip.offsetWidth > this.width + AXIS_WIDTH;
    this.tip.style.left = Math.max(0, right ? x - 14 - this.tip.offsetWidth : x + 14) + "px";
    this.tip.style.top = Math.max(0, Math.min(y - this.tip.offsetHeight / 2, this.height - this.tip.offsetHeight)) + "px";
  }
}

function line(g, x1, y1, x2, y2) {
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
}
