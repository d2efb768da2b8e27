"""What is bad in the store is set aside, and asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atb.core.timeframe import timeframe_ms
from atb.data.checking import Fault
from atb.data.layout import FETCHED, SeriesKey
from atb.data.store import CandleStore


class Mended(NamedTuple):
    """aside: where the bad part is now. missing: what is to be asked for again, ms; None for what no exchange gave."""

    fault: Fault
    aside: str
    missing: tuple[int, int] | None


def set_aside(store: CandleStore, faults: Sequence[Fault]) -> list[Mended]:
    """Put bad parts where nobody reads them."""
    done = []
    for fault in faults:
        with store.locked(fault.key):
            aside = store.set_aside(fault.part)
        part = fault.part
        step = timeframe_ms(fault.key.timeframe)
        again = part.kind == FETCHED and part.end_ms - part.start_ms >= step
        done.append(Mended(fault, aside, (part.start_ms, part.end_ms) if again else None))
    return done


def ranges(mended: Sequence[Mended]) -> dict[SeriesKey, tuple[int, int]]:
    """By series, from where to where it is to be asked for again; what is there meanwhile is not."""
    found: dict[SeriesKey, tuple[int, int]] = {}
    for each in mended:
        if each.missing is not None:
            low, high = found.get(each.fault.key, each.missing)
            found[each.fault.key] = min(low, each.missing[0]), max(high, each.missing[1])
    return found
