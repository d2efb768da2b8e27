"""A free port on loopback."""

from __future__ import annotations

import socket

from atb.core.errors import DatabaseError
from atb.ledger.embedded.place import START, Note

TRIED = 100


def choose_port(remembered: object, first_port: int, on_note: Note, taken: int = 0) -> int:
    """The remembered port if it is free, else the next free one. `taken` was found to be in use just now."""
    known = isinstance(remembered, int) and not isinstance(remembered, bool) and 0 < remembered < 65536
    wanted = int(str(remembered)) if known else first_port
    last = min(wanted + TRIED, 65536)
    for port in range(wanted, last):
        if port != taken and is_free(port):
            if port != wanted:
                on_note(f"Port {wanted} is in use: the database listens on {port}.")
            return port
    raise DatabaseError(
        f"No free port for the database: {wanted} to {last - 1} are all in use on this machine.",
        f"End what uses them, then: {START}",
    )


def is_free(port: int) -> bool:
    """Whether nothing listens there. Also on the IPv6 side: `psql -h localhost` would reach that one first."""
    if _answers(socket.AF_INET, "127.0.0.1", port) or _answers(socket.AF_INET6, "::1", port):
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does: TIME_WAIT is no user
            probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _answers(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((address, port)) == 0
    except OSError:
        return False
