"""Exit 0 where Binance answers at the address that the settings name, as quietly as can be: what `make demo` goes by."""

from __future__ import annotations

import sys

from atb.core.errors import AtbError
from atb.settings import load_settings
from atb.venue.reachable import reachable


def answers() -> bool:
    try:
        settings = load_settings()
        return reachable("binance", settings.url("binance"), rates=settings.rates)
    except AtbError:  # an odd setting, or a proxy that cannot be used: the command that needs it says so
        return True


if __name__ == "__main__":
    sys.exit(not answers())
