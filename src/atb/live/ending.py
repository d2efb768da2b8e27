"""The end of an engine by an error, perhaps just between the cancel of a stop and the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from atb.core.errors import Fenced
from atb.execution.executor import Event
from atb.execution.session import Session

Tell = Callable[[Event], None]


@contextlib.contextmanager
def left_protected(session: Session, tell: Tell) -> Iterator[None]:
    """Whatever error ends it, but for the account being somebody else's now: no stop is missing that can be placed."""
    try:
        yield
    except Fenced:
        raise
    except Exception as error:
        held = session.state.begun is not None and any(map(session.state.held, range(session.state.count)))
        if held:
            tell(Event("critical", "engine_failed", f"The engine ends, and positions are held. {error}"))
            _protect(session, tell)
        raise


def _protect(session: Session, tell: Tell) -> None:
    executor = session.executor
    executor.hold = "the engine ends"
    for s, (symbol, _) in enumerate(session.state.traded[: session.state.count]):
        try:
            executor.act_on(s)
        except Fenced:
            return
        except Exception as error:  # noqa: BLE001 - a fault in one must not leave the next one without its stop
            tell(Event("critical", "not_protected", f"{symbol.id} could not be looked after: {error}"))
    bare = executor.bare.now(executor.broker.now_ms())
    if bare:
        names = " ".join(session.state.traded[s].symbol.id for s in bare)
        tell(Event("critical", "not_protected", f"Held without a stop at the exchange: {names}."))
