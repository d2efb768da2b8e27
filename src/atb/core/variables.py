"""What the text of an environment variable means. A UsageError names the variable."""

from __future__ import annotations

import re
from collections.abc import Mapping

from atb.core.errors import UsageError

Variables = Mapping[str, str]
SWITCH = {"": False, "0": False, "false": False, "no": False, "off": False}
SWITCH |= {"1": True, "true": True, "yes": True, "on": True}


def is_on(text: str) -> bool:
    """Anything but a word for off, so that a switch that was misspelt is on."""
    return SWITCH.get(text.strip().lower(), True)


def switch(env: Variables, name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value not in SWITCH:
        raise UsageError(f"{name}='{value}' is neither on nor off.", f"Write {name}=1 or {name}=0.")
    return SWITCH[value]


def seconds(env: Variables, name: str, low: float, high: float) -> float | None:
    """A time within bounds; None where the variable is not set."""
    value = env.get(name, "").strip()
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not low <= number <= high:
        raise UsageError(f"{name}='{value}' is no number of seconds from {low:g} to {high:g}.", f"Write {name}=10")
    return number


def root(env: Variables, name: str, schemes: tuple[str, ...]) -> str | None:
    """The root of an API, without the slash at its end; None where the variable is not set."""
    value = env.get(name, "").rstrip("/")
    if value and not _is_root(value, schemes):
        shown = re.sub("//.*@", "//***@", value)  # there may be a password in it
        raise UsageError(f"{name}='{shown}' is not a URL.", f"Write the root, such as {schemes[0]}://127.0.0.1:9000")
    return value or None


def _is_root(text: str, schemes: tuple[str, ...]) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address in brackets that do not match, a port that is no number
        return False


UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def size(env: Variables, name: str) -> int | None:
    """Bytes, written as 500MB or 10GB; None where the variable is not set."""
    value = env.get(name, "").strip()
    if not value:
        return None
    digits = value.rstrip("BKMGTbkmgt ")
    unit = value[len(digits) :].strip().lower()
    try:
        number = float(digits) * UNITS[unit]
    except (ValueError, KeyError):
        number = -1.0
    if not 1 <= number < 10**18:
        raise UsageError(f"{name}='{value}' is no size.", f"Write {name}=10GB")
    return int(number)
