"""The entry of the `atb` command: ready for Ctrl-C before anything that takes time is imported."""

from __future__ import annotations

# `signal` makes enums of its numbers first, which takes the milliseconds that count here.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported, or has ended, is an end without a traceback."""
    signal.signal(signal.SIGINT, _leave)
    from atb.cli.root import run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:  # between two places that take it themselves
        _leave()
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    """Nothing is half-done at these times, so nothing has to be unwound: an exception could end in anybody's import."""
    if sys.stderr is not None:
        os.write(2, b"Error: Interrupted.\n")
    os._exit(INTERRUPTED)
