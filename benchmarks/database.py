"""`atb db` from the shell, on a running embedded server with 20,000 fills, in multiples of `python -c pass`."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from atb.ledger.connect import connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import start, stop
from atb.ledger.journal import append
from atb.ledger.migrate import migrate
from benchmarks.ledger import FILLS, FIRST_PORT, MIGRATIONS, an_account, trade_fill
from benchmarks.measure import Row, best_of
from benchmarks.shell import ATB, run

QUERY = "SELECT (peak_balance - current_balance) / peak_balance FROM trading_sessions ORDER BY start_time DESC LIMIT 1;"
LINES = {
    "atb db query": ([ATB, "db", "query", QUERY], 35.0),
    f"atb db verify, {FILLS:,} fills": ([ATB, "db", "verify"], 120.0),
    "atb db positions": ([ATB, "db", "positions"], None),
    "atb db status": ([ATB, "db", "status"], None),
}


def commands(quick: bool) -> list[Row]:
    """The two commands with a limit, and two more."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = start(home, first_port=FIRST_PORT)
        try:
            where = where_of(server)
            migrate(where, MIGRATIONS)
            with connect(where) as connection:
                account, epoch = an_account(connection, "paper:bench")
                for at in range(0, FILLS, 500):
                    append(connection, account.id, epoch, [trade_fill(n) for n in range(at, at + 500)])
            env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {"ATB_HOME": folder}
            works = {name: partial(run, line, env) for name, (line, _) in LINES.items()}
            rounds = 5 if quick else 15
            seconds = best_of({"pass": partial(run, [sys.executable, "-c", "pass"], env), **works}, rounds)
        finally:
            stop(home)
    return [Row(name, seconds[name] / seconds["pass"], "x", limit) for name, (_, limit) in LINES.items()]
