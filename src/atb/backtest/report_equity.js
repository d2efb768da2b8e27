// Equity against buy and hold with the drawdown below, on one axis of time; the stretches of the run are shaded.

const SEGMENT_NAMES = { in_sample: "in sample", validation: "validation", out_of_sample: "out of sample" };

class EquityChart extends Chart {
  constructor(figure, data) {
    const e = data.equity, time = unpackTimes(e.time);
    super(figure, [time[0], time[time.length - 1]], 20 * e.time.step);
    this.data = data;
    this.time = time;
    this.equity = unpackScaled(e.equity, e.scale);
    this.market = unpackScaled(e.market, e.scale);
    this.drawdown = unpackScaled(e.drawdown, e.drawdownScale);
    this.setLog(wideRange(...this.extent(0, time.length)));
    this.caption.textContent = (e.every > 1 ? `One point for ${e.every} candles, the drawdown the deepest of them. ` : "") + HINT;
    this.redraw();
  }

  extent(first, last) {
    let low = Infinity, high = -Infinity;
    for (const values of [this.equity, this.market])
      for (let i = first; i < last; i++) {
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
      }
    return [low, high];
  }

  draw() {
    const first = Math.max(0, firstFrom(this.time, this.from) - 1), last = Math.min(this.time.length, firstFrom(this.time, this.to) + 1);
    this.middle = Math.round(this.height * 0.74);
    this.shadeSegments();
    this.timeAxis();
    const y = this.drawEquity(first, last);
    this.drawDrawdown(first, last);
    this.nameSegments();
    this.readOut(y, Math.max(0, firstFrom(this.time, this.to + 1) - 1));
  }

  shadeSegments() {
    const segments = this.data.segments;
    for (const s of segments) {
      const left = Math.max(0, this.x(s.start)), right = Math.min(this.width, this.x(s.end));
      if (right <= left) continue;
      this.g.globalAlpha = 0.1;
      this.g.fillStyle = colour(s.name.replaceAll("_", "-")) || colour("faint");
      this.g.fillRect(left, 0, right - left, this.height);
      this.g.globalAlpha = 1;
    }
  }

  nameSegments() {
    const g = this.g;
    g.textBaseline = "top";
    g.textAlign = "left";
    let taken = -Infinity, row = 0;
    for (const s of this.data.segments) {
      const left = Math.max(0, this.x(s.start)), right = Math.min(this.width, this.x(s.end));
      if (right <= left) continue;
      const text = (SEGMENT_NAMES[s.name] || s.name).toUpperCase(), width = g.measureText(text).width;
      const x = Math.min(left + 5, this.width - width - 3);
      row = x < taken ? row + 1 : 0;
      taken = x + width + 8;
      g.fillStyle = colour(s.name.replaceAll("_", "-")) || colour("soft");
      g.fillText(text, x, 5 + 15 * row);
    }
  }

  drawEquity(first, last) {
    const y = this.scaleTo(...this.extent(first, last), 22, this.middle - 8, 0.06);
    this.clipped(0, this.middle, () => {
      this.curve(this.market, first, last, y, colour("market"), 1.3);
      this.curve(this.equity, first, last, y, colour("equity"), 1.8);
    });
    return y;
  }

  curve(values, first, last, y, style, width) {
    const g = this.g;
    g.strokeStyle = style;
    g.lineWidth = width;
    g.lineJoin = "round";
    g.beginPath();
    for (let i = first; i < last; i++) g.lineTo(this.x(this.time[i]), y(values[i]));
    g.stroke();
    g.lineWidth = 1;
  }

  drawDrawdown(first, last) {
    const g = this.g, from = this.middle + 8, to = this.height - 4;
    let deepest = 0.001;
    for (let i = first; i < last; i++) deepest = Math.max(deepest, this.drawdown[i]);
    const y = (d) => from + (d / (deepest * 1.08)) * (to - from);
    g.strokeStyle = colour("faint");
    line(g, 0, from + 0.5, this.width, from + 0.5);
    const axis = valueTicks(0, deepest * 100, 3);
    axis.ticks = axis.ticks.map((v) => v / 100);
    this.valueAxis(axis, y, (v) => num(-v * 100, axis.decimals) + "%");
    this.clipped(from, to + 4, () => {
      g.beginPath();
      g.moveTo(this.x(this.time[first]), from);
      for (let i = first; i < last; i++) g.lineTo(this.x(this.time[i]), y(this.drawdown[i]));
      g.lineTo(this.x(this.time[last - 1]), from);
      g.closePath();
      g.fillStyle = colour("fall");
      g.globalAlpha = 0.3;
      g.fill();
      g.globalAlpha = 1;
      this.curve(this.drawdown, first, last, y, colour("fall"), 1);
    });
  }

  // The point nearest to the pointer, else point `i`.
  readOut(y, i) {
    if (this.hover && this.hover.x <= this.width) {
      const t = this.timeAt(this.hover.x), k = Math.min(this.time.length - 1, firstFrom(this.time, t));
      i = k > 0 && t - this.time[k - 1] < this.time[k] - t ? k - 1 : k;
      this.cross(this.x(this.time[i]));
      for (const [values, name] of [[this.market, "market"], [this.equity, "equity"]]) this.dot(this.x(this.time[i]), y(values[i]), colour(name));
    }
    const d = this.data.decimals;
    this.readout.textContent =
      `${stamp(this.time[i])}   Strategy\u00a0${num(this.equity[i], d)}   Buy\u00a0and\u00a0hold\u00a0${num(this.market[i], d)}   ` +
      `Drawdown\u00a0${num(-this.drawdown[i] * 100, 2)}%`;
  }

  dot(x, y, style) {
    this.g.fillStyle = style;
    this.g.beginPath();
    this.g.arc(x, y, 3, 0, 7);
    this.g.fill();
  }
}
