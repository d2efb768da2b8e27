"""The parameters of a request, read and checked as Binance does."""

from __future__ import annotations

import re
from decimal import Decimal

from tests.venue.exchange.binance.errors import ApiError, illegal, missing
from tests.venue.exchange.market import Market
from tests.venue.exchange.wire import Call

DECIMAL = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
INTEGER = r"^[0-9]{1,20}$"
SYMBOL = r"^[A-Z0-9-_.]{1,20}$"
CLIENT_ID = r"^[a-zA-Z0-9-_.:/]{1,36}$"
PLACES = 8
ALWAYS = {"timestamp", "recvWindow", "signature"}


class Params:
    """Counts what is read, for a parameter that nobody reads is an error (-1104)."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._sent = {name: str(value) for name, value in call.query.items() if name not in ALWAYS}
        self._read: set[str] = set()

    def text(self, name: str, legal: str = ".*") -> str | None:
        """None where it was not sent; sent but empty is an error."""
        self._read.add(name)
        value = self._sent.get(name)
        if value is None:
            return None
        if value == "":
            raise ApiError(-1105, f"Parameter '{name}' was empty.")
        if not re.fullmatch(legal, value):
            raise illegal(name, legal)
        return value

    def needed(self, name: str, legal: str = ".*") -> str:
        if (value := self.text(name, legal)) is None:
            raise missing(name)
        return value

    def integer(self, name: str) -> int | None:
        value = self.text(name, INTEGER)
        return None if value is None else int(value)

    def decimal(self, name: str) -> Decimal | None:
        value = self.text(name, DECIMAL)
        if value is not None and len(value.partition(".")[2].rstrip("0")) > PLACES:
            raise ApiError(-1111, f"Parameter '{name}' has too much precision.")
        return None if value is None else Decimal(value)

    def choice(self, name: str, allowed: tuple[str, ...], error: tuple[int, str]) -> str:
        value = self.needed(name)
        if value not in allowed:
            raise ApiError(*error)
        return value

    def limit(self) -> int:
        """How many records at most: 500, on demand up to 1000."""
        asked = self.integer("limit")
        return 500 if asked is None else min(asked, 1000)

    def market(self, name: str = "symbol") -> Market:
        symbol = self.needed(name, SYMBOL)
        if symbol not in self._call.exchange.listings:
            raise ApiError(-1121, "Invalid symbol.")
        return self._call.exchange.market(symbol)

    def ignore(self, *names: str) -> None:
        """What the real exchange reads and what changes nothing here."""
        self._read.update(names)

    def done(self) -> None:
        """Everything has been read that this request may have."""
        read = self._sent.keys() & self._read
        if len(read) < len(self._sent):
            counts = f"read '{len(read)}' parameter(s) but was sent '{len(self._sent)}'"
            raise ApiError(-1104, f"Not all sent parameters were read; {counts}.")
