"""A store as it was laid out before its folders named what they hold: binance/spot/BTCUSDT/1h. It is moved once."""

from __future__ import annotations

import contextlib
from pathlib import Path

from atb.data.layout import SeriesKey

VENUES = ("binance", "coinbase")


def adopt_former(root: Path) -> None:
    """Each series in its new place, a rename each; what cannot be moved stays for another time."""
    for venue in VENUES:
        with contextlib.suppress(OSError):
            _adopt(root, venue)


def _adopt(root: Path, venue: str) -> None:
    if (root / venue).is_dir():
        for folder in sorted((root / venue).glob("*/*/*")):
            target = root / SeriesKey(venue, *folder.relative_to(root / venue).parts).path
            with contextlib.suppress(OSError):
                target.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(target)
        for path in sorted((root / venue).glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
