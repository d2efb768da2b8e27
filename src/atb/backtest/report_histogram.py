"""The report's histogram of returns per trade: SVG with percentages for its width, so that it fits every screen."""

from __future__ import annotations

import math

import numpy as np

from atb.backtest.report_format import Markup, change, count, esc, note, percent
from atb.backtest.result import BacktestResult
from atb.core.words import counted
from atb.engine.candles import Floats, Ints

BINS = 30
TOP_PX, BASE_PX = 16, 196
PLOT_PX = BASE_PX - TOP_PX


def distribution(result: BacktestResult) -> Markup:
    """A histogram of the returns of closed trades."""
    returns = result.trades.return_frac[~result.trades.open]
    returns = returns[np.isfinite(returns)]
    if len(returns) == 0:
        return note("No closed trades.")
    counts, first, width, cut = histogram(returns)
    caption = (
        f"{counted(len(returns), 'closed trade')}, mean {change(float(returns.mean()))}, "
        f"median {change(float(np.median(returns)))}; a bar spans {percent(width, _edge_decimals(width))}."
        + (" The outermost bars hold everything beyond them." if cut else "")
    )
    return Markup(_histogram_svg(counts, first, width, cut, caption) + note(caption))


def histogram(returns: Floats) -> tuple[Ints, int, float, bool]:
    """Counts, the first bar's edge in bar widths, the width, and whether the outermost bars hold more than their span.

    The edges are multiples of the width, so zero is one of them and no bar mixes gains and losses.
    """
    low, high = (float(q) for q in np.quantile(returns, (0.005, 0.995)))
    width = nice_step(max(high - low, 1e-4) / BINS)
    place = np.floor(returns / width + 1e-9).astype(np.int64)
    first, last = (math.floor(q / width + 1e-9) for q in (low, high))
    cut = bool(np.any((place < first) | (place > last)))
    return np.bincount(np.clip(place, first, last) - first, minlength=last - first + 1), first, width, cut


def nice_step(at_least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= at_least * (1 - 1e-9))


def _histogram_svg(counts: Ints, first: int, width: float, cut: bool, caption: str) -> str:
    n, most = len(counts), int(counts.max())
    bars = "".join(_bar(i, int(c), n, most, first, width) for i, c in enumerate(counts.tolist()) if c)
    labels = "".join(_edge_label(i, n, first, width) for i in _label_places(n, first))
    top = f'<text x="0" y="11" class="axis">{count(most)} {"trade" if most == 1 else "trades"}</text>'
    grid, base = (
        f'<line x1="0" x2="100%" y1="{y}" y2="{y}" class="{css}"/>' for y, css in ((TOP_PX, "grid"), (BASE_PX, "base"))
    )
    return f'<svg class="histogram" role="img" aria-label="{esc(caption)}">{top}{grid}{bars}{base}{labels}</svg>'


def _bar(i: int, trades: int, n: int, most: int, first: int, width: float) -> str:
    height = max(1.0, PLOT_PX * trades / most)
    side = "gain" if first + i >= 0 else "loss"
    low, high = (percent((first + i + k) * width, _edge_decimals(width), signed=True) for k in (0, 1))
    return (
        f'<rect class="{side}" x="{100 * (i + 0.06) / n:.3f}%" width="{88 / n:.3f}%" y="{BASE_PX - height:.1f}" '
        f'height="{height:.1f}"><title>{low} to {high}: {count(trades)}</title></rect>'
    )


def _label_places(n: int, first: int) -> list[int]:
    """Edges to label: multiples of a nice number of bars, so that zero is among them, at most about six."""
    every = max(1, round(nice_step(n / 6)))
    return [i for i in range(n + 1) if (first + i) % every == 0]


def _edge_label(i: int, n: int, first: int, width: float) -> str:
    anchor = "start" if i == 0 else "end" if i == n else "middle"
    text = percent((first + i) * width, _edge_decimals(width), signed=True)
    return f'<text x="{100 * i / n:.3f}%" y="{BASE_PX + 16}" class="axis" text-anchor="{anchor}">{text}</text>'


def _edge_decimals(width: float) -> int:
    return max(0, -math.floor(math.log10(width * 100.0) + 1e-9))
