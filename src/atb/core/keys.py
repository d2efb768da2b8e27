"""An exchange's key and the identity of an account. The secret is in no text that this class gives."""

from __future__ import annotations

import hashlib
from typing import NoReturn

HIDDEN = "***"
_TELLING = 16  # letters of a secret in several lines that tell something of it; "PRIVATE" does not
_SHOWN = 12  # hexadecimal digits: enough to tell one's keys apart, far too few to find a key from


class ApiKey:
    """What an exchange knows a program by. Neither part is ever shown: not by repr, not by str, not by pickle."""

    __slots__ = ("id", "secret")

    def __init__(self, id: str, secret: str) -> None:
        self.id = id
        self.secret = secret

    @property
    def fingerprint(self) -> str:
        """A name for the key that is no secret and from which it cannot be found."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:_SHOWN]

    def __repr__(self) -> str:
        return f"ApiKey({self.fingerprint})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not written anywhere.")

    def masked(self, text: str) -> str:
        """`text` without either part, should an exchange or a library have repeated one."""
        for part in (self.secret, *self.secret.split(), self.id):
            if len(part) >= _TELLING or part in (self.secret, self.id):
                text = text.replace(part, HIDDEN) if part else text
        return text


def account_identity(venue: str, market: str, environment: str, fingerprint: str) -> str:
    """Which account it is: `binance:spot:real:1f2e...`. environment: real, testnet or paper."""
    return f"{venue}:{market}:{environment}:{fingerprint}"
