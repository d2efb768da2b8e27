"""Ask engines how they are, as cron does: well is only what says so itself, in time, and is the one that was meant."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from atb.core.process import Process

DEFAULT_PORT = 8000
FOLDER = "engines"
MOST_BYTES = 1_000_000
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}


class Registered(NamedTuple):
    """An engine that was started on this machine and did not end in order. trouble: why it need not even be asked."""

    account: str
    session_id: int
    pid: int
    port: int | None
    host: str = ""
    trouble: str = ""
    address: str = ""  # where it is not a port of this machine

    @property
    def url(self) -> str:
        if self.address or self.port is None:
            return self.address
        return f"http://{LOOPBACK.get(self.host, self.host)}:{self.port}/health"


class Answer(NamedTuple):
    """What came of asking. document: what the engine told of itself, if it did."""

    name: str
    url: str
    healthy: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    document: dict[str, Any] | None = None


def somebody(port: int | None, address: str = "") -> Registered:
    """Whatever engine listens there."""
    return Registered("", 0, 0, port, address=address)


def registered(home: Path) -> list[Registered]:
    """The engines in ATB_HOME/engines, one file each. One that is gone does not count where
    another has its account by now."""
    found = [_read(path) for path in sorted((home / FOLDER).glob("*.json"))]
    well = {engine.account for engine in found if not engine.trouble}
    return [engine for engine in found if not engine.trouble or engine.account not in well]


def check_engines(engines: Sequence[Registered], timeout_s: float) -> list[Answer]:
    """Ask all of them at the same time. None is waited for much longer than `timeout_s`, whatever it does."""
    answers: dict[int, Answer] = {}

    def ask(i: int) -> None:
        answers[i] = check_engine(engines[i], timeout_s)

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(len(engines))]
    until_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()) + 0.2)
    late = f"It did not answer within {timeout_s:g} s."
    return [answers.get(i) or _unwell(engine, late) for i, engine in enumerate(engines)]


def check_engine(engine: Registered, timeout_s: float) -> Answer:
    """Ask one, and see that it is the one that was meant. Anything but its own word that it is healthy is not."""
    if engine.trouble:
        return _unwell(engine, engine.trouble)
    try:
        code, document = _fetch(engine.url, timeout_s)
    except TimeoutError:
        return _unwell(engine, f"It did not answer within {timeout_s:g} s.")
    except _Unusable as error:
        return _unwell(engine, str(error))
    reasons = _texts(document.get("reasons"))
    if document["status"] != "healthy" or code != 200:
        reasons = reasons or ["It says so without a reason."]
    reasons += _another(engine, document)
    name = str(document.get("account") or engine.account)
    return Answer(name, engine.url, not reasons, tuple(reasons), tuple(_texts(document.get("notes"))), document)


def _texts(told: object) -> list[str]:
    return [str(text) for text in told] if isinstance(told, list) else []


def _another(meant: Registered, document: dict[str, Any]) -> Iterator[str]:
    """Why what answers is not the engine that was meant: its port may be another's by now."""
    for name, wanted in (("account", meant.account), ("session_id", meant.session_id), ("pid", meant.pid)):
        if wanted and document.get(name) != wanted:
            yield f"Another engine answers there: its {name} is {document.get(name)}, not {wanted}."


def _unwell(engine: Registered, reason: str) -> Answer:
    return Answer(engine.account, engine.url, False, (reason,))


class _Unusable(Exception):
    """Nothing that an engine would say."""


def _fetch(url: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """The status code and the JSON at `url`. No proxy: engines are near."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=timeout_s) as response:
            code, body = response.status, response.read(MOST_BYTES)
    except HTTPError as error:
        with error:
            code, body = error.code, error.read(MOST_BYTES)
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from None
        raise _Unusable(f"Nothing answers there: {_words(error.reason)}.") from None
    except TimeoutError:
        raise
    except (HTTPException, OSError, ValueError) as error:
        raise _Unusable(f"What answers there is no engine of atb: {_words(error)}.") from None
    return code, _document(code, body)


def _document(code: int, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("status"), str):
        raise _Unusable(f"What answers there is no engine of atb: HTTP {code} without its JSON.")
    return document


def _words(error: object) -> str:
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error) or type(error).__name__
    return text.lower().rstrip(".")


def _read(path: Path) -> Registered:
    """One that cannot be read is one that is not well, not one that is not there."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        process, port = Process(**told["process"]), int(told.get("health_port") or 0)
        process = process._replace(pid=int(process.pid))
        session, host = int(told.get("session_id") or 0), str(told.get("health_host") or "")
        return Registered(str(told["account"]), session, process.pid, port or None, host, _trouble(process, port))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Registered(path.stem, 0, 0, None, trouble=f"{path} cannot be read.")


def _trouble(process: Process, port: int) -> str:
    """One of another container is asked all the same: its pid means nothing here, its port may."""
    if process.is_gone or process.was_before_restart:
        return f"Process {process.pid} is gone, and did not end its session."
    return "" if port else f"Process {process.pid} serves no health: its port was taken."
