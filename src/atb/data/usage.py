"""How often what was wanted was there already: counted across processes, in a small file beside the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from atb.core.local_files import locked, replace
from atb.core.timeframe import iso

PATIENCE_S = 0.2  # a count is not worth more


class Hits(NamedTuple):
    """Candles that were asked for, and those of them that were stored. since: text, empty where nothing was counted."""

    wanted: int = 0
    found: int = 0
    since: str = ""

    @property
    def rate(self) -> float | None:
        return self.found / self.wanted if self.wanted else None


class Usage:
    """By venue. `path` None: nothing is counted."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def count(self, venue: str, wanted: int, found: int, now_ms: int) -> None:
        """What cannot be counted is not: no command fails for it."""
        if self.path is None or wanted <= 0:
            return
        try:
            with locked(self.path.with_suffix(".lock"), PATIENCE_S):
                known = self.read()
                before = known.get(venue, Hits(since=iso(now_ms)))
                known[venue] = Hits(before.wanted + wanted, before.found + found, before.since)
                rows = {name: hits._asdict() for name, hits in known.items()}
                replace(self.path, json.dumps(rows).encode(), sync=False)
        except OSError:
            return

    def read(self) -> dict[str, Hits]:
        if self.path is None:
            return {}
        try:
            rows = json.loads(self.path.read_text())
            return {
                str(name): Hits(int(row["wanted"]), int(row["found"]), str(row["since"])) for name, row in rows.items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}


NOT_COUNTED = Usage(None)
