// The candles of one symbol with entries and exits. Each level holds longer candles than the one below.

const PIXELS_A_CANDLE = 4;
const DENSE = 6; // pixels a fill: below, triangles are small and the lines between them are left out

function readSymbol(symbol) {
  const base = unpackCandles(symbol), levels = [base];
  while (levels[levels.length - 1].time.length > 500) levels.push(coarser(levels));
  const t = symbol.trades, f = symbol.fills;
  return {
    levels,
    trades: { ...t, entryTime: unpackSteps(t.entryTime), exitTime: unpackSteps(t.exitTime) },
    fills: { ...f, time: unpackSteps(f.time) },
  };
}

class CandleChart extends Chart {
  constructor(figure, data) {
    super(figure, [0, 1], 1);
    this.data = data;
    this.read = [];
    this.marked = -1;
    this.choose(0);
    const select = document.getElementById("symbol");
    if (select) select.addEventListener("change", () => this.choose(Number(select.value)));
  }

  choose(s) {
    this.s = s;
    this.read[s] = this.read[s] || readSymbol(this.data.symbols[s]);
    Object.assign(this, this.read[s]);
    const { time, step } = this.levels[0];
    this.half = step / 2;
    const lows = this.levels[this.levels.length - 1].low, highs = this.levels[this.levels.length - 1].high;
    this.setLog(wideRange(lows.reduce((a, b) => Math.min(a, b), Infinity), highs.reduce((a, b) => Math.max(a, b), -Infinity)));
    this.marked = -1;
    this.setSpan(time.length ? [time[0], time[time.length - 1] + step] : [0, step], 20 * step);
    const select = document.getElementById("symbol");
    if (select) select.value = String(s);
    this.redraw();
  }

  act(name) {
    if (name !== "next" && name !== "prev") return super.act(name);
    const n = this.trades.pnl.length;
    if (n === 0) return true;
    this.showTrade(Math.min(n - 1, Math.max(0, this.nearTrade(name === "next" ? 1 : -1))));
    return true;
  }

  // The trade after or before the marked one; without one, the first after or the last before the middle of the view.
  nearTrade(by) {
    if (this.marked >= 0) return this.marked + by;
    const whole = this.from <= this.span[0] && this.to >= this.span[1];
    const at = firstFrom(this.trades.entryTime, whole ? (by > 0 ? this.span[0] : this.span[1]) : (this.from + this.to) / 2);
    return by > 0 ? at : at - 1;
  }

  // The chart at the trade of that row of the report's trades; false where it is not drawn.
  goTo(row) {
    for (let s = 0; s < this.data.symbols.length; s++) {
      const k = this.data.symbols[s].trades.row.indexOf(row);
      if (k < 0) continue;
      if (s !== this.s) this.choose(s);
      this.showTrade(k);
      return true;
    }
    return false;
  }

  showTrade(k) {
    const from = this.trades.entryTime[k], to = this.trades.exitTime[k] + this.levels[0].step;
    const width = Math.max((to - from) * 3, 60 * this.levels[0].step);
    this.marked = k;
    this.hover = null;
    this.show((from + to) / 2 - width / 2, (from + to) / 2 + width / 2);
  }

  level() {
    const most = Math.max(20, this.width / PIXELS_A_CANDLE);
    return this.levels.find((l) => (this.to - this.from) / l.step <= most) || this.levels[this.levels.length - 1];
  }

  draw() {
    const level = this.level(), first = Math.max(0, firstFrom(level.time, this.from) - 1), last = firstFrom(level.time, this.to);
    let low = Infinity, high = -Infinity;
    for (let i = first; i < last; i++) {
      low = Math.min(low, level.low[i]);
      high = Math.max(high, level.high[i]);
    }
    if (!(high >= low)) [low, high] = [0, 1];
    this.timeAxis();
    const y = this.scaleTo(low, high, 0, this.height, 0.08);
    const near = this.nearest(y);
    this.clipped(0, this.height, () => {
      this.drawCandles(level, first, last, y);
      this.drawTrades(y, near);
    });
    this.describe(level, last, near, y);
  }

  drawCandles(level, first, last, y) {
    const g = this.g, width = Math.max(1, Math.min(14, (this.x(this.from + level.step) - 0) * 0.68));
    for (const up of [true, false]) {
      g.fillStyle = colour(up ? "candle-up" : "candle-down");
      for (let i = first; i < last; i++) {
        if (level.close[i] >= level.open[i] !== up) continue;
        const x = this.x(level.time[i] + level.step / 2), top = y(Math.max(level.open[i], level.close[i]));
        g.fillRect(x - 0.5, y(level.high[i]), 1, Math.max(1, y(level.low[i]) - y(level.high[i])));
        g.fillRect(x - width / 2, top, width, Math.max(1, y(Math.min(level.open[i], level.close[i])) - top));
      }
    }
  }

  fillX(i) { return this.x(this.fills.time[i] + this.half); }

  visibleFills() {
    return [firstFrom(this.fills.time, this.from - this.levels[0].step), firstFrom(this.fills.time, this.to)];
  }

  drawTrades(y, near) {
    const [first, last] = this.visibleFills(), dense = this.width / Math.max(1, last - first) < DENSE;
    const marked = near >= 0 ? this.fills.of[near] : this.marked;
    if (!dense) this.drawHeld(y, first, last, marked);
    else if (marked >= 0) this.drawLine(marked, y, 2);
    const size = dense ? 3 : 5;
    for (let i = first; i < last; i++) this.triangle(i, y, this.fills.of[i] === marked ? 7 : size);
  }

  drawHeld(y, first, last, marked) {
    const seen = new Set([marked]);
    for (let i = first; i < last; i++) seen.add(this.fills.of[i]);
    const { entryTime, exitTime } = this.trades, next = firstFrom(entryTime, this.from) - 1;
    if (next >= 0 && exitTime[next] >= this.to) seen.add(next); // held through the whole window
    for (const k of seen) if (k >= 0) this.drawLine(k, y, k === marked ? 2 : 1);
  }

  drawLine(k, y, width) {
    const g = this.g, t = this.trades;
    g.strokeStyle = colour(t.pnl[k] >= 0 ? "gain" : "loss");
    g.lineWidth = width;
    g.setLineDash([4, 3]);
    line(g, this.x(t.entryTime[k] + this.half), y(t.entryPrice[k]), this.x(t.exitTime[k] + this.half), y(t.exitPrice[k]));
    g.setLineDash([]);
    g.lineWidth = 1;
  }

  // Its tip is at the price of the fill: entries from below, exits from above.
  triangle(i, y, size) {
    const g = this.g, x = this.fillX(i), tip = y(this.fills.price[i]), buy = this.fills.qty[i] > 0, base = tip + (buy ? 1 : -1) * size * 1.7;
    g.fillStyle = buy ? colour("ink") : colour(this.trades.pnl[this.fills.of[i]] >= 0 ? "gain" : "loss");
    g.strokeStyle = colour("panel");
    g.beginPath();
    g.moveTo(x, tip);
    g.lineTo(x - size, base);
    g.lineTo(x + size, base);
    g.closePath();
    g.fill();
    g.stroke();
  }

  // The fill under the pointer, or -1.
  nearest(y) {
    if (!this.hover) return -1;
    let best = -1, least = 14 ** 2;
    const [first, last] = this.visibleFills();
    for (let i = first; i < last; i++) {
      const middle = y(this.fills.price[i]) + (this.fills.qty[i] > 0 ? 5 : -5);
      const distance = (this.fillX(i) - this.hover.x) ** 2 + (middle - this.hover.y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  describe(level, last, near, y) {
    this.readout.textContent = this.candleText(level, last - 1);
    const shown = near >= 0 ? near : this.hover ? -1 : this.fills.of.lastIndexOf(this.marked);
    if (shown >= 0) this.showTip(this.fillText(shown), this.fillX(shown), y(this.fills.price[shown]));
    const symbol = this.data.symbols[this.s], drawn = symbol.trades.row.length, parts = [];
    parts.push(level.step === symbol.step ? `Candles: ${symbol.label}.` : `Candles: ${lengthName(level.step)} in this view, zoom in down to ${symbol.label}.`);
    if (symbol.merged) parts.push("The run's own candles are shorter; they were aggregated for this file.");
    if (drawn < symbol.tradesTotal) parts.push(`Only the first ${num(drawn, 0)} of ${num(symbol.tradesTotal, 0)} trades are drawn.`);
    this.caption.textContent = parts.concat(HINT.replace("Home.", "Home, N and P for trades.")).join(" ");
  }

  // The candle under the pointer, else candle `i`.
  candleText(level, i) {
    if (i < 0) return "";
    if (this.hover && this.hover.x <= this.width) {
      this.cross(this.hover.x);
      i = Math.max(0, firstFrom(level.time, this.timeAt(this.hover.x) + 1) - 1);
    }
    const [o, h, l, c] = ["open", "high", "low", "close"].map((name) => price(level[name][i]));
    return `${this.data.symbols[this.s].name}   ${stamp(level.time[i])}   O\u00a0${o}   H\u00a0${h}   L\u00a0${l}   C\u00a0${c}`;
  }

  fillText(i) {
    const f = this.fills, t = this.trades, k = f.of[i], d = this.data.decimals;
    const result = `${t.open[k] ? "open, marked at the end" : "trade"}: pnl ${num(t.pnl[k], d, true)} (${pct(t.return[k], true)})`;
    return [
      `${f.qty[i] > 0 ? "Buy" : "Sell"} ${Math.abs(f.qty[i]).toLocaleString("en-US", { maximumFractionDigits: 12 })} at ${price(f.price[i])}`,
      stamp(f.time[i]),
      `reason: ${this.data.reasons[f.reason[i]]}`,
      `rule: ${this.data.rules[f.rule[i]]}`,
      `${result}, no. ${t.row[k] + 1}`,
    ].join("\n");
  }
}
