"""How long positions were without their stop: seen at moments that the loop names, which may be older than now."""

from __future__ import annotations


class Protection:
    """Told of every change, and of every check. At a fill the position is without a stop from the fill's time on."""

    def __init__(self, total_ms: int = 0, worst_ms: int = 0) -> None:
        self.total_ms, self.worst_ms = total_ms, worst_ms
        self._since: dict[str, int] = {}

    def see(self, symbol: str, protected: bool, at_ms: int) -> None:
        """At `at_ms` the position in `symbol` had its stop, or had none. A position that is closed needs none."""
        if not protected:
            self._since.setdefault(symbol, at_ms)
        elif symbol in self._since:
            lasted = max(0, at_ms - self._since.pop(symbol))
            self.total_ms += lasted
            self.worst_ms = max(self.worst_ms, lasted)

    def since_ms(self, symbol: str) -> int | None:
        """Since when it is without; None: it is not."""
        return self._since.get(symbol)
