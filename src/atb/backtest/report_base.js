// Reading what report_data.py packed, and writing numbers and times as the page does.

function bytesOf(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// Zigzag LEB128. Multiplication instead of shifts: values may pass 2^31.
function unpackInts(text) {
  const bytes = bytesOf(text), out = [];
  let value = 0, weight = 1;
  for (const byte of bytes) {
    value += (byte & 127) * weight;
    if (byte & 128) { weight *= 128; continue; }
    out.push(value % 2 ? -(value + 1) / 2 : value / 2);
    value = 0;
    weight = 1;
  }
  return Float64Array.from(out);
}

function unpackSteps(text) {
  const values = unpackInts(text);
  for (let i = 1; i < values.length; i++) values[i] += values[i - 1];
  return values;
}

function unpackScaled(text, scale) {
  const values = unpackSteps(text), unit = 10 ** scale;
  return values.map((v) => v / unit);
}

function unpackTimes({ first, step, longer }) {
  const times = unpackInts(longer);
  let t = first - step;
  for (let i = 0; i < times.length; i++) times[i] = t += step + times[i];
  return times;
}

function unpackCandles(symbol) {
  const unit = 10 ** symbol.scale, time = unpackTimes(symbol.time), n = time.length;
  const [o, h, l, c] = ["open", "high", "low", "close"].map((name) => unpackInts(symbol[name]));
  let before = 0;
  for (let i = 0; i < n; i++) {
    o[i] += before;
    c[i] += o[i];
    before = c[i];
    h[i] += Math.max(o[i], c[i]);
    l[i] = Math.min(o[i], c[i]) - l[i];
  }
  const [open, high, low, close] = [o, h, l, c].map((column) => column.map((v) => v / unit));
  return { time, open, high, low, close, step: symbol.step };
}

const MINUS = "\u2212", SECOND = 1000, DAY = 86400 * SECOND, WEEK = 7 * DAY;
const LENGTHS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800].map((s) => s * SECOND).concat(WEEK, 2 * WEEK, 4 * WEEK, 12 * WEEK);

// The length of the next coarser level: a usual one, or twice as long; and the coarsest level it can be made from.
function nextLength(levels) {
  const step = levels[levels.length - 1].step;
  const usual = LENGTHS.find((length) => length >= step * 1.9 && levels.some((l) => length % l.step === 0));
  return usual || step * 2;
}

// Candles of `step` ms, aligned to the clock (weeks begin on Monday).
function coarser(levels) {
  const step = nextLength(levels), level = levels.findLast((l) => step % l.step === 0), anchor = step % WEEK === 0 ? 4 * DAY : 0;
  const out = { time: [], open: [], high: [], low: [], close: [], step };
  let at = NaN;
  for (let i = 0; i < level.time.length; i++) {
    const slot = Math.floor((level.time[i] - anchor) / step), k = out.time.length - 1;
    if (slot === at) {
      out.high[k] = Math.max(out.high[k], level.high[i]);
      out.low[k] = Math.min(out.low[k], level.low[i]);
      out.close[k] = level.close[i];
    } else {
      at = slot;
      out.time.push(slot * step + anchor);
      for (const name of ["open", "high", "low", "close"]) out[name].push(level[name][i]);
    }
  }
  return out;
}

// The first index whose value is not below x.
function firstFrom(values, x) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

function num(value, decimals, signed) {
  if (value === null || !Number.isFinite(value)) return "n/a";
  const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  if (!/[1-9]/.test(text)) return text;
  return (value < 0 ? MINUS : signed ? "+" : "") + text;
}
const pct = (fraction, signed) => (fraction === null ? "n/a" : num(fraction * 100, 2, signed) + "%");
const price = (value) => num(value, value ? Math.min(12, Math.max(2, 5 - Math.floor(Math.log10(Math.abs(value))))) : 2);
const stamp = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
const MONTH = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function lengthName(ms) {
  for (const [unit, size] of [["w", WEEK], ["d", DAY], ["h", 3600000], ["m", 60000], ["s", 1000]]) if (ms % size === 0) return ms / size + unit;
  return ms + "ms";
}

// Round numbers between low and high, about `wanted` of them.
function valueTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted) || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= rough) * power;
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high && ticks.length < 100; k++) ticks.push(k * step);
  return { ticks, decimals: Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0))) };
}

// Round numbers for a logarithmic axis.
function logTicks(low, high, wanted) {
  if (high / low < 3) return valueTicks(low, high, wanted);
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++)
    for (const m of high / low > 1000 ? [1] : [1, 2, 5]) if (m * 10 ** p >= low && m * 10 ** p <= high) ticks.push(m * 10 ** p);
  return ticks.length < 3 ? valueTicks(low, high, wanted) : { ticks, decimals: Math.max(0, -Math.floor(Math.log10(low))) };
}

const CLOCK_STEPS = [1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 172800, 604800].map((s) => s * 1000);

// Times to label: whole clock steps, or first days of months and years.
function timeTicks(from, to, wanted) {
  const rough = (to - from) / Math.max(1, wanted), step = CLOCK_STEPS.find((s) => s >= rough);
  if (step) {
    const ticks = [];
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) ticks.push(t);
    return { ticks, name: (t, full) => clockName(t, step, full) };
  }
  const months = [1, 2, 3, 6, 12, 24, 60, 120].find((m) => m * 30.4 * DAY >= rough) || 240;
  return { ticks: monthTicks(from, to, months), name: (t, full) => monthName(t, months, full) };
}

function monthTicks(from, to, every) {
  const start = new Date(from), ticks = [];
  let month = Math.floor((start.getUTCFullYear() * 12 + start.getUTCMonth()) / every) * every;
  for (;;) {
    const t = Date.UTC(Math.floor(month / 12), month % 12, 1);
    if (t > to) return ticks;
    if (t >= from) ticks.push(t);
    month += every;
  }
}

function clockName(t, step, full) {
  const d = new Date(t), date = `${d.getUTCDate()} ${MONTH[d.getUTCMonth()]}`, day = full ? `${date} ${d.getUTCFullYear()}` : date;
  if (step >= DAY || t % DAY === 0) return day;
  const clock = d.toISOString().slice(11, step < 60000 ? 19 : 16);
  return full ? `${day} ${clock}` : clock;
}

function monthName(t, every, full) {
  const d = new Date(t), year = String(d.getUTCFullYear()), month = MONTH[d.getUTCMonth()];
  if (every >= 12 || d.getUTCMonth() === 0) return year;
  return full ? `${month} ${year}` : month;
}
