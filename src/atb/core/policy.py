"""The Policy: everything about a position that does not come from the signal. One value, with safe defaults.

The fields, their help and their bounds are written here once; flags, files, `--help` and the reports are made from them.
Fractions are fractions (0.05 is 5 %), counts are candles. docs/backtest-rules.md says what each field does.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.errors import UsageError, nearest

PartialExits = tuple[tuple[float, float], ...]
SIZINGS = ("fraction", "risk", "confidence")
NEUTRALS = ("hold", "flat")
MAX_PARTIAL_EXITS = 3
POLICY_HINT = "It is a TOML file of policy values, as in stop_loss = 0.03; they are listed by: atb backtest --help"
FLAGS = "flags"  # the origin of values from the command line: their errors name the flag


class Field(NamedTuple):
    """One field: its default, the interval it must lie in and what it means."""

    name: str
    default: Any
    low: float
    high: float
    help: str
    group: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


FIELDS = (
    Field("direction", "long", 0, 0, "What may be held. Spot is long only.", "Entries"),
    Field(
        "sizing",
        "fraction",
        0,
        0,
        "How an entry is sized: fraction, risk (per trade, against the stop) or confidence (fraction times signal).",
        "Entries",
    ),
    Field("fraction", 0.2, 1e-6, 1.0, "Share of equity an entry takes (sizing fraction and confidence).", "Entries"),
    Field("risk_per_trade", 0.01, 1e-6, 1.0, "Share of equity lost if the stop is hit (sizing risk).", "Entries"),
    Field("min_confidence", 0.1, 1e-9, 1.0, "A signal at least this strong asks for a position.", "Entries"),
    Field(
        "cooldown",
        0,
        0,
        1e9,
        "Candles to wait after an exit; 0: after a protective exit wait for a new signal.",
        "Entries",
    ),
    Field("neutral", "hold", 0, 0, "What a weak or absent signal means for what is held: hold or flat.", "Exits"),
    Field("stop_loss", 0.05, 0.0, 0.999, "Stop this far below the deciding close; 0: none.", "Exits"),
    Field("take_profit", 0.0, 0.0, 1e6, "Take profit this far above the deciding close; 0: none.", "Exits"),
    Field("trailing_stop", 0.0, 0.0, 0.999, "Stop this far below the best close since the entry; 0: none.", "Exits"),
    Field("trailing_after", 0.0, 0.0, 1e6, "Gain from which the trailing stop follows.", "Exits"),
    Field("break_even_after", 0.0, 0.0, 1e6, "Gain from which the stop is at the entry price; 0: never.", "Exits"),
    Field("max_hold", 0, 0, 1e9, "Longest time in a position, in candles; 0: no limit.", "Exits"),
    Field(
        "partial_exits", (), 0, 0, "Sell SHARE of the entry at GAIN, as GAIN:SHARE; repeatable, up to three.", "Exits"
    ),
    Field("max_position", 0.25, 1e-6, 1.0, "Largest share of equity in one symbol at its entry.", "Limits"),
    Field("max_exposure", 1.0, 1e-6, 1.0, "Largest share of equity in all symbols at an entry.", "Limits"),
    Field("max_open_positions", 5, 1, 1e6, "Most symbols held at once.", "Limits"),
    Field(
        "daily_loss_limit",
        0.05,
        0.0,
        1.0,
        "No entries for the rest of the UTC day after this loss; 0: no limit.",
        "Limits",
    ),
    Field(
        "max_drawdown",
        0.25,
        1e-6,
        1.0,
        "Halt after this drawdown: what is held is sold, nothing more is bought; 1: no limit.",
        "Limits",
    ),
)
BY_NAME = {field.name: field for field in FIELDS}
LIMITS = tuple(field.name for field in FIELDS if field.group == "Limits")
_CHOICES = {"direction": ("long",), "sizing": SIZINGS, "neutral": NEUTRALS}
_COUNTS = ("cooldown", "max_hold", "max_open_positions")


class Policy(NamedTuple):
    """Sizing, exits and limits; see FIELDS. Make one with `make_policy`, which checks it."""

    direction: str = "long"
    sizing: str = "fraction"
    fraction: float = 0.2
    risk_per_trade: float = 0.01
    min_confidence: float = 0.1
    cooldown: int = 0
    neutral: str = "hold"
    stop_loss: float = 0.05
    take_profit: float = 0.0
    trailing_stop: float = 0.0
    trailing_after: float = 0.0
    break_even_after: float = 0.0
    max_hold: int = 0
    partial_exits: PartialExits = ()
    max_position: float = 0.25
    max_exposure: float = 1.0
    max_open_positions: int = 5
    daily_loss_limit: float = 0.05
    max_drawdown: float = 0.25

    def as_dict(self) -> dict[str, Any]:
        return self._asdict() | {"partial_exits": [list(level) for level in self.partial_exits]}

    def digest(self) -> str:
        """Names this policy in reports: the same values give the same 12 characters."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]


def make_policy(values: Mapping[str, Any], origin: str = "policy") -> Policy:
    """A checked Policy from field values; the rest are defaults. `origin` (a file, "flags") is named in errors."""
    checked = {name: _check(name, value, origin) for name, value in values.items()}
    policy = Policy(**checked)
    if policy.sizing == "risk" and not _has_initial_stop(policy):
        raise UsageError(
            f"{origin}: sizing risk needs a stop to measure the risk against.",
            "Set stop_loss (or trailing_stop with trailing_after 0).",
        )
    return policy


def effective_policy(
    own: Mapping[str, Any] | None, file: Mapping[str, Any], flags: Mapping[str, Any], file_name: str = "policy file"
) -> tuple[Policy, list[str]]:
    """The Policy a run uses, and what was not taken from the operator.

    A strategy's own values come before the defaults, the operator's file and flags before those; but a limit that the
    strategy brings can only be tightened.
    """
    own_policy = make_policy(own or {}, "the strategy's policy")
    # Each source is checked by itself first, so that an error names where the value came from.
    asked = {k: _check(k, v, file_name) for k, v in file.items()} | {k: _check(k, v, FLAGS) for k, v in flags.items()}
    notes = []
    for name in LIMITS:
        if name in asked and name in (own or {}):
            kept = _tighter(name, getattr(own_policy, name), asked[name])
            if kept != asked[name]:
                flag = BY_NAME[name].flag
                notes.append(f"{flag} {asked[name]} is looser than the strategy's own {kept}; {kept} stays in force.")
            asked[name] = kept
    return make_policy({**(own or {}), **asked}, "the policy in force"), notes


def load_policy(path: str) -> dict[str, Any]:
    """Field values from a TOML file (flat, or under [policy])."""
    import tomllib

    try:
        with Path(path).open("rb") as file:
            data = tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"Policy file {path} does not exist.", _near_policies(path)) from None
    except IsADirectoryError:
        raise UsageError(f"Policy file {path} is a folder, not a file.", POLICY_HINT) from None
    except OSError as error:
        raise UsageError(f"Policy file {path} cannot be read: {error.strerror}.", f"Who may: ls -ld '{path}'") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"Policy file {path} cannot be read: {error}.", "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Policy file {path} is not TOML: {error}.") from None
    return {name: _check(name, value, path) for name, value in _table(data, path).items()}


def _near_policies(path: str) -> str:
    folder = Path(path).parent
    known = sorted(p.name for p in folder.glob("*.toml")) if folder.is_dir() else []
    return nearest(Path(path).name, known) if known else POLICY_HINT


def _table(data: dict[str, Any], path: str) -> dict[str, Any]:
    """The fields of a policy file: what [policy] holds, else all of it."""
    if "policy" not in data:
        return data
    stray = [name for name in data if name in BY_NAME]
    if stray:
        raise UsageError(f"{path}: {stray[0]} stands outside [policy].", "Put all fields under [policy], or none.")
    values = data["policy"]
    if not isinstance(values, dict):
        raise UsageError(f"{path}: [policy] must be a table of fields, not {values!r}.")
    return values


def parse_partial_exits(texts: list[str], origin: str = "--partial-exits") -> PartialExits:
    """`["0.05:0.5", ...]` as ((gain, share), ...)."""
    levels = []
    for text in texts:
        gain, _, share = text.partition(":")
        try:
            levels.append((float(gain), float(share)))
        except ValueError:
            raise UsageError(f"{origin} '{text}' is not GAIN:SHARE.", "Write 0.05:0.5 to sell half at +5 %.") from None
    return tuple(levels)


def _check(name: str, value: Any, origin: str) -> Any:
    field = BY_NAME.get(name)
    if field is None:
        raise UsageError(f"{origin}: unknown field '{name}'.", nearest(str(name), list(BY_NAME)))
    place = field.flag if origin == FLAGS else f"{origin}: {name}"
    if name == "partial_exits":
        return _check_partial_exits(value, place)
    if name in _CHOICES:
        return _check_choice(name, value, place)
    number: Any = value if not isinstance(value, bool) and isinstance(value, Real) else None
    if number is None or not field.low <= number <= field.high:
        low, high = f"{field.low:g}", f"{field.high:g}"
        raise UsageError(f"{place} must be a number from {low} to {high}, not {value!r}.", field.help)
    if name in _COUNTS:
        if number != int(number):
            raise UsageError(f"{place} must be a whole number, not {value!r}.", field.help)
        return int(number)
    return float(number)


def _check_choice(name: str, value: Any, place: str) -> str:
    if name == "direction" and value in ("short", "both"):
        raise UsageError(
            f"{place} {value}: a short was asked for; atb trades spot, which is long only.",
            "Perpetuals will come later; use direction long.",
        )
    if value not in _CHOICES[name]:
        raise UsageError(f"{place} must be {' or '.join(_CHOICES[name])}, not {value!r}.", BY_NAME[name].help)
    return str(value)


def _check_partial_exits(value: Any, place: str) -> PartialExits:
    try:
        if value and isinstance(value[0], str):
            value = parse_partial_exits(list(value), place)
        levels = tuple((float(gain), float(share)) for gain, share in value)
    except (TypeError, ValueError, LookupError):
        raise UsageError(f"{place} must be pairs of gain and share, not {value!r}.", "As in [[0.05, 0.5]].") from None
    gains = [gain for gain, _ in levels]
    if len(levels) > MAX_PARTIAL_EXITS or gains != sorted(set(gains)) or any(not 0 < g <= 1e6 for g in gains):
        raise UsageError(f"{place} takes up to {MAX_PARTIAL_EXITS} levels with rising gains above 0.")
    if any(not 0 < share <= 1 for _, share in levels) or sum(share for _, share in levels) > 1 + 1e-9:
        raise UsageError(f"{place}: the shares must be above 0 and add up to at most 1.")
    return levels


def _has_initial_stop(policy: Policy) -> bool:
    return policy.stop_loss > 0 or (policy.trailing_stop > 0 and policy.trailing_after == 0)


def _tighter(name: str, first: float, second: float) -> float:
    if name == "daily_loss_limit" and 0 in (first, second):
        return max(first, second)
    return min(first, second)
