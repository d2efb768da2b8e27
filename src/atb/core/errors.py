"""The error tree. A class says what the caller can do about it; `exit_code` is what the shell sees.

    AtbError                    1   a bug, or something nobody foresaw
      UsageError                2   a flag, a file name or a setting is wrong: change it
      DataError                 3   candles are missing, broken or too few
      ExchangeUnavailable       4   no answer, or not a usable one: try again later
      ExchangeRefused           5   the exchange said no: the request has to change
      DatabaseError             6   no database, or not a usable one: start it, migrate it, look at what it says
        DatabaseUnavailable     6   not now: it starts, restarts, is full or gone; the same again later may succeed
      Disagreement              7   the ledger and the exchange, or two of our own records, tell different things
      Fenced                    9   another process has authority over the account now
      StrategyError            10   a strategy or model is missing, broken or peeks into the future
      Unhealthy                11   no engine runs, or one that runs is not well
      Interrupted             130   Ctrl-C

Code 8 (risk halt) is reserved.
"""

from __future__ import annotations


class AtbError(Exception):
    """The root. `what` is one sentence with the place in it; `hint` is the next command or the remedy."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class UsageError(AtbError):
    exit_code = 2


class DataError(AtbError):
    exit_code = 3


class ExchangeUnavailable(AtbError):
    exit_code = 4


class ExchangeRefused(AtbError):
    exit_code = 5


class DatabaseError(AtbError):
    exit_code = 6


class DatabaseUnavailable(DatabaseError):
    """Not now, but perhaps a little later: it starts, restarts, is full or gone."""


class OutcomeUnknown(DatabaseUnavailable):
    """Whether something was written is not known: asked again by id, never taken for a failure."""


class Disagreement(AtbError):
    exit_code = 7


class Fenced(AtbError):
    exit_code = 9


class StrategyError(AtbError):
    exit_code = 10


class Unhealthy(AtbError):
    exit_code = 11


class Interrupted(AtbError):
    exit_code = 130


def nearest(word: str, known: list[str]) -> str:
    """A hint naming the known words nearest to `word`, for 'unknown X' errors."""
    import difflib

    folded: dict[str, list[str]] = {}
    for name in known:
        folded.setdefault(name.casefold(), []).append(name)
    close = [
        name for m in difflib.get_close_matches(word.casefold(), list(folded), n=3, cutoff=0.5) for name in folded[m]
    ]
    if close:
        return f"Nearest: {', '.join(close)}."
    return f"Known: {', '.join(known[:12])}{', ...' if len(known) > 12 else '.'}"
