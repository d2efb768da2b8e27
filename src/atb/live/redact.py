"""What is told to anybody goes through here: no secrets, one line, no control characters, not too long."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 2_000  # an exchange may answer with a whole page
HIDDEN = "***"
# Where secrets stand when nobody knows them by heart: URLs, signed requests, headers.
PLACES = (
    re.compile(r"(?<=://)([^/\s:@]*:)[^\s@]+(?=@)"),
    re.compile(
        r"(?i)\b((?:signature|api[_-]?key|x-mbx-apikey|secret|password|token)['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;]+"
    ),
    re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"),
)


class Redactor:
    """Cleans texts. secrets: those that are known; empty and very short ones would hide half of the language."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted({s for s in secrets if len(s) >= 6}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for place in PLACES:
            text = place.sub(rf"\g<1>{HIDDEN}", text)
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]}... ({len(text):,} characters)"
        return one_line(text)


def one_line(text: str) -> str:
    """Line breaks as \\n and whatever moves a terminal as \\x1b: a log has one event a line, and obeys nobody."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
