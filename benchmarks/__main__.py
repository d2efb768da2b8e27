"""`python -m benchmarks [--quick] [--no-fail] [--json FILE] [NAME ...]`: measure, print, fail where a limit is exceeded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import data, database, emergency, engine, ledger, live, live_process, ml, peers, shell, stages
from benchmarks.measure import Row, show

SECTIONS: dict[str, tuple[str, Callable[[bool], list[Row]]]] = {
    "engine": ("Engine through its Python API, against a bare compiled loop", engine.against_a_bare_loop),
    "ten": ("Ten symbols", engine.ten_symbols),
    "growth": ("Growth and memory beyond the candles", engine.growth),
    "ml": ("A model over a million candles", ml.million),
    "shell": ("Whole commands, in multiples of python -c pass", shell.commands),
    "data": ("Market data: filling the store, and reading it", data.stored),
    "ledger": ("The ledger: appending, folding, auditing", ledger.appends),
    "database": ("atb db, in multiples of python -c pass", database.commands),
    "live": ("Live trading", lambda quick: [*live.latencies(quick), *live.resumes(quick), *live_process.starts(quick)]),
    "emergency": ("An emergency close at the loopback exchange", emergency.closing),
    "imports": ("Imports, in multiples of python -c pass", shell.imports),
    "stages": ("Where the rest goes: one run with its summary", stages.of_a_run),
    "command": ("Where the rest goes: atb backtest sma_cross over 2,000 stored candles", stages.of_a_command),
    "peers": ("The same work elsewhere, 17,500 bars", peers.same_work),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"sections: {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--no-fail", action="store_true", help="exit 0 even where a limit is exceeded")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    unknown = set(args.names) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    found: dict[str, list[Row]] = {}
    for name in args.names or SECTIONS:
        title, measure = SECTIONS[name]
        found[name] = measure(args.quick)
        sys.stdout.write(show(title, found[name]) + "\n\n")
        sys.stdout.flush()
    if args.json:
        args.json.write_text(
            json.dumps({name: [row._asdict() for row in rows] for name, rows in found.items()}, indent=1)
        )
    if any(row.over for rows in found.values() for row in rows) and not args.no_fail:
        sys.exit("A limit is exceeded.")


if __name__ == "__main__":
    main()
