"""The part of the loopback exchange that public candles need; all of it is tests.venue.exchange."""

from tests.venue.exchange import DAY_MS, FOREVER, Exchange, Fault, Loopback, Rows

__all__ = ["DAY_MS", "FOREVER", "Exchange", "Fault", "Loopback", "Rows"]
