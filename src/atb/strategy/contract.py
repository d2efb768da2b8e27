"""What a strategy is. docs/writing-a-strategy.md tells it with examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from atb.core.errors import UsageError, nearest
from atb.core.timeframe import parse_duration_ms
from atb.engine.candles import COLUMNS, Candles, Floats
from atb.engine.sides import Side


class Param(NamedTuple):
    """A tunable number: its default and the closed range it may be tuned in."""

    default: float
    low: float
    high: float
    help: str = ""


def param(default: Any, low: float, high: float, help: str = "") -> Any:
    """Declare a parameter in a strategy's class body: `fast: int = param(20, 2, 400, "fast average, candles")`."""
    return Param(default, low, high, help)


SIDE_NAME = re.compile(r"[a-z][a-z0-9_]*")
MAX_AGES = {"funding_rate": "1d", "open_interest": "6h", "fear_greed": "3d"}  # unless a strategy says otherwise


def side(name: str, max_age: str | None = None, *, venue: str | None = None, symbol: str | None = None) -> Side:
    """Declare a side series in a strategy's class body: `sides = (side("funding_rate", max_age="8h"),)`.

    An older value than `max_age` counts as none. symbol: of another than the candles' own; venue: where several have one.
    """
    check_side_name(name)
    age = MAX_AGES.get(name) if max_age is None else max_age
    return Side(name, None if age is None else parse_duration_ms(str(age), f"{name}: max_age"), venue, symbol)


def check_side_name(name: str) -> str:
    """`name` itself; a UsageError where no side series can have it."""
    if not isinstance(name, str) or not SIDE_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a side series.", "Small letters, digits, _, as in funding_rate."
        )
    if name in ("open_time", *COLUMNS):
        raise UsageError(f"{name} is a column of candles, and cannot be the name of a side series.", "Choose another.")
    return name


def sides_of(cls: type[Strategy]) -> tuple[Side, ...]:
    """The side series that a strategy declares. UsageError where that is not what it must be."""
    declared = cls.sides
    listed = (
        [declared] if isinstance(declared, str | Side) else declared
    )  # ("a") is no tuple: everybody forgets the comma
    if not isinstance(listed, Sequence) or not all(isinstance(each, str | Side) for each in listed):
        raise UsageError(f"sides of class {cls.__name__} must be names or side(...), not {declared!r}.")
    found = tuple(each if isinstance(each, Side) else side(each) for each in listed)
    twice = sorted({each.name for each in found if [other.name for other in found].count(each.name) > 1})
    if twice:
        raise UsageError(f"class {cls.__name__} declares the side series {twice[0]} more than once.")
    return found


class Strategy:
    """Base of all strategies: parameters, a declared memory, and `signals`.

    A subclass says what it holds, not what it does: `signals` maps candles to numbers in [-1, 1], whose sign is the
    direction and whose size is the confidence; NaN while there is too little history. It sees candles, with the side
    series that it declares, and never the position. `signals(c)[t]` may depend on the `lookback_bars` candles that end with
    t, and on nothing else.
    """

    name: str = ""
    params: ClassVar[Mapping[str, Param]] = {}
    policy: ClassVar[Mapping[str, Any]] = {}  # values of core.policy.FIELDS that this strategy is meant to run with
    equal_shares: ClassVar[bool] = (
        False  # True: fraction and max_position are of the account, divided among the symbols
    )
    model_kind: ClassVar[str | None] = None  # "basic": the loader sets `model` for the symbol and timeframe
    model: Any = None
    sides: ClassVar[Sequence[Side | str]] = ()  # side series beside the candles: "funding_rate", or side(...)
    silent_at_times: ClassVar[bool] = False  # True: NaN after the warm-up is meant ("no signal"), not a fault

    def __init_subclass__(cls) -> None:
        inherited = dict(cls.params)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Param)}
        cls.params = {**inherited, **own}

    def __init__(self, **values: float) -> None:
        for name in values:
            if name not in self.params:
                raise UsageError(f"{self.title()} has no parameter '{name}'.", nearest(name, sorted(self.params)))
        for name, declared in self.params.items():
            setattr(self, name, _checked(self.title(), name, declared, values.get(name, declared.default)))

    @property
    def lookback_bars(self) -> int:
        """How many candles, its own included, a signal depends on."""
        raise NotImplementedError(f"{type(self).__name__} must define lookback_bars")

    def signals(self, candles: Candles) -> Floats:
        """float64[n] in [-1, 1], NaN while warming up."""
        raise NotImplementedError(f"{type(self).__name__} must define signals")

    @classmethod
    def title(cls) -> str:
        return cls.name or cls.__name__

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    def values(self) -> dict[str, float]:
        """The parameters in use."""
        return {name: getattr(self, name) for name in self.params}


def check_declarations(cls: type[Strategy]) -> None:
    """UsageError where a strategy's class misses a part, or its parameters or policy are not what they must be."""
    from atb.core.policy import make_policy

    for part in ("signals", "lookback_bars"):
        if getattr(cls, part) is getattr(Strategy, part):
            raise UsageError(
                f"class {cls.__name__} defines no {part}.", "A working example: atb strategies new my_idea"
            )
    if not callable(cls.signals):
        raise UsageError(f"signals of class {cls.__name__} is no method.")
    for name, declared in cls.params.items():
        try:
            _checked(cls.__name__, name, declared, declared.default)
        except TypeError:
            raise UsageError(
                f"the range of parameter {name} is not numbers: {declared.low!r}, {declared.high!r}."
            ) from None
    if not isinstance(cls.policy, Mapping):
        raise UsageError(f"policy of class {cls.__name__} must be a dictionary, not {cls.policy!r}.")
    make_policy(cls.policy, "policy")
    sides_of(cls)


def _checked(title: str, name: str, declared: Param, value: Any) -> float:
    whole = isinstance(declared.default, int) and not isinstance(declared.default, bool)
    try:
        number = int(value) if whole and float(value) == int(float(value)) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{title}: {name} must be a number, not {value!r}.", declared.help) from None
    if whole and not isinstance(number, int):
        raise UsageError(f"{title}: {name} must be a whole number, not {value!r}.", declared.help)
    if not declared.low <= number <= declared.high:
        raise UsageError(
            f"{title}: {name} must be from {declared.low:g} to {declared.high:g}, not {number!r}.", declared.help
        )
    return number


def own_policy(cls: type[Strategy], symbols: int) -> dict[str, Any]:
    """The strategy's policy; one that divides the account gives each of `symbols` the same part."""
    own = dict(cls.policy)
    if cls.equal_shares:
        own |= {name: own[name] / symbols for name in ("fraction", "max_position") if name in own}
        own["max_open_positions"] = max(symbols, own.get("max_open_positions", symbols))
    return own
