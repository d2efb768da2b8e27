"""The hand-over: a start waits a little for whoever holds its account, and says whom it waits for."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atb.core.errors import Fenced
from atb.core.process import this_process
from atb.execution.executor import Event
from atb.ledger.accounts import AccountRow
from atb.ledger.lease import Standing, claim
from atb.ledger.steady import record_event

if TYPE_CHECKING:
    from psycopg import Connection

WAIT_S = 20.0  # an engine that was asked to end needs seconds
LOOK_EVERY_S = 0.2


def wait_for_authority(
    connection: Connection[Any], account: AccountRow, *, lease_s: float, wait_s: float = WAIT_S,
    tell: Callable[[Event], None] = lambda _: None,
) -> int:  # fmt: skip
    """Authority over the account for `lease_s` seconds, as soon as it is free. Returns the epoch.

    Fenced when somebody else has it still after `wait_s` seconds: it is told of once, when waiting begins. Whoever renews
    nothing for as long as its lease was given is silent, by this process' own clock: that of the database may be set back.
    """
    began, told = time.monotonic(), False
    seen: Standing | None = None
    since = began
    while True:
        silent = seen is not None and seen.given_s is not None and time.monotonic() - since > seen.given_s
        claimed = claim(connection, account.id, lease_s=lease_s, silent=seen if silent else None)
        if not isinstance(claimed, Standing):
            return claimed
        if seen is None or not claimed.is_as(seen):
            seen, since = claimed, time.monotonic()
        left_s = began + wait_s - time.monotonic()
        if left_s <= 0:
            raise _held(connection, account, claimed, wait_s)
        if not told:
            told = True
            _tell_of_waiting(connection, account, claimed, wait_s, tell)
        time.sleep(min(LOOK_EVERY_S, left_s))


def _tell_of_waiting(
    connection: Connection[Any], account: AccountRow, seen: Standing, wait_s: float, tell: Callable[[Event], None]
) -> None:
    text = f"Account {account.name} is held by {described(seen)}. Waiting up to {wait_s:.0f} s for it to let go."
    tell(Event("info", "authority_waited_for", text))
    record_event(connection, "info", "authority", "authority_waited_for", f"{_me()}: {text}", account.id)


def _held(connection: Connection[Any], account: AccountRow, seen: Standing, wait_s: float) -> Fenced:
    waited = f" It did not let go within {wait_s:.0f} s." if wait_s > 0 else ""
    what = f"Account {account.name} is held by {described(seen)}.{waited}"
    record_event(connection, "warning", "authority", "authority_refused", f"{_me()}: {what}", account.id)
    lease = f" (its lease ends in {seen.left_s:.0f} s unless it is renewed)" if seen.left_s is not None else ""
    return Fenced(
        what,
        f"See it: atb live status. End it, on its host: atb live stop --account {shlex.quote(account.name)}. "
        f"Or wait, and start again{lease}.",
    )


def described(seen: Standing) -> str:
    """Who it is, since when, and when it was last heard of."""
    since = f" since {seen.since.replace('T', ' ').replace('Z', ' UTC')}" if seen.since else ""
    age_s = seen.heartbeat_age_s
    heard = "no heartbeat" if age_s is None else f"last heartbeat {max(0.0, age_s):.0f} s ago"
    return f"{seen.shown}{since} ({heard})"


def _me() -> str:
    return this_process().shown
