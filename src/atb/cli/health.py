"""`atb health`: are the engines of this machine well? For cron and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atb.cli.lean import LeanCommand, LeanGroup

if TYPE_CHECKING:
    from pathlib import Path

    from atb.ops.health import Answer

app = typer.Typer(
    cls=LeanGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Whether the engines of this machine are well.\n\n\b\n"
    "Examples:\n  atb health check\n  atb health check --port 8001 --json",
)
LONGEST_S = 3600.0


@app.callback()
def health() -> None:
    pass


@app.command(
    "check",
    cls=LeanCommand,
    help="Ask every engine that runs here how it is: the judgement of its /health.\n\n"
    "Exit code 0: all are healthy. 11: one is not, does not answer, is gone without having ended, or none runs.\n\n\b\n"
    "Examples:\n  atb health check\n  atb health check --port 8001 --timeout 2\n"
    "  atb health check --url http://10.0.0.5:8000/health --json",
)
def check(
    port: Annotated[
        int | None,
        typer.Option(help="Ask only what listens on this port.  [default: all engines, or port 8000]"),
    ] = None,
    url: Annotated[str, typer.Option(help="Ask only this address: http://HOST:PORT/health.  [default: none]")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds until no answer is one.", metavar="SECONDS")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    from atb.core.errors import Unhealthy
    from atb.settings import load_settings

    _check(port, url, timeout)
    answers = _answers(port, url, timeout, load_settings().home)
    _print(answers, json)
    unwell = [answer for answer in answers if not answer.healthy]
    if all(answer.document is None for answer in answers):
        raise Unhealthy(
            "No engine answers.", "If none runs, start it: atb live STRATEGY --symbol SYMBOL --resume-from-last-balance"
        )
    if unwell:
        number = "1 engine is" if len(unwell) == 1 else f"{len(unwell)} engines are"
        raise Unhealthy(f"{number} not healthy, of {len(answers)} that {'was' if len(answers) == 1 else 'were'} asked.")


def _answers(port: int | None, url: str, timeout_s: float, home: Path) -> list[Answer]:
    from atb.ops.health import DEFAULT_PORT, check_engines, registered, somebody

    if url or port is not None:
        return check_engines([somebody(port, _whole(url) if url else "")], timeout_s)
    return check_engines(registered(home) or [somebody(DEFAULT_PORT)], timeout_s)


def _whole(url: str) -> str:
    """With /health, where only a host and a port are given."""
    return f"{url.rstrip('/')}/health" if url.rstrip("/").count("/") == 2 else url


def _check(port: int | None, url: str, timeout_s: float) -> None:
    from atb.core.errors import UsageError

    if url and port is not None:
        raise UsageError("--port and --url exclude each other.", "Choose one.")
    if port is not None and not 0 < port < 65_536:
        raise UsageError(f"--port {port} is no port.", "It is from 1 to 65535.")
    if url and not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url} is no address.", "Write http://HOST:PORT/health")
    if not 0 < timeout_s <= LONGEST_S:
        raise UsageError(f"--timeout {timeout_s:g} is no time to wait.", f"It is above 0, up to {LONGEST_S:g} seconds.")


def _print(answers: list[Answer], json: bool) -> None:
    if json:
        from atb.cli.console import print_json

        whole = all(answer.healthy for answer in answers)
        print_json({"healthy": whole, "engines": [answer._asdict() for answer in answers]})
        return
    for answer in answers:
        typer.echo(f"{'✅' if answer.healthy else '❌'} {_line(answer)}")
        for text in answer.reasons:
            typer.echo(f"   {text}")
        for text in answer.notes:
            typer.echo(f"   Note: {text}")


def _line(answer: Answer) -> str:
    """What it is, how it is, and the numbers that one looks at first."""
    name = f"{answer.name} at {answer.url}" if answer.name and answer.url else answer.name or answer.url
    told = answer.document
    if told is None:
        return f"{name}: unhealthy"
    facts = [
        "healthy" if answer.healthy else "unhealthy",
        str(told.get("mode")),
        f"session {told.get('session_id')}",
        f"balance {told.get('balance')}",
        f"{told.get('active_positions')} open",
        f"last cycle {told.get('last_cycle_age_seconds')} s ago",
    ]
    return f"{name}: {', '.join(facts)}"
