"""Bad input: what is said, the exit code, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.market import HEAD, PEEKS, scripted, walk_file
from tests.integration.shell import RUN, Ran, Shell, without_powers

BAD: dict[str, tuple[int, str]] = {
    # names
    "backtst sma_cross": (2, "No such command 'backtst'. Did you mean 'backtest'?"),
    "backtest sma_cros --symbol BTCUSDT": (10, "Unknown strategy 'sma_cros'.\n  Nearest: sma_cross."),
    "backtest sma_cross --symbol BTC --data candles.csv": (
        2,
        "'BTC' is not a symbol.\n  Write the exchange's own name (BTCUSDT",
    ),
    "backtest sma_cross --symbol BTC/USDT:USDT": (
        2,
        "'BTC/USDT:USDT' names a perpetual or future; only spot is supported.\n  Try BTC/USDT.",
    ),
    "backtest sma_cross --symbol BTCUSDT --timeframe 1hh": (2, "Unknown timeframe '1hh'.\n  Nearest: 1h"),
    "backtest sma_cross --symbol BTCUSDT --timeframe 1M --provider simulated": (
        2,
        "The timeframe 1M has no fixed length.",
    ),
    "backtest sma_cross --symbol BTCUSDT --provider binanse": (2, "Unknown provider 'binanse'.\n  Nearest: binance"),
    "backtest sma_cross --symbol BTCUSDT --provider Binance": (2, "Unknown provider 'Binance'.\n  Nearest: binance"),
    "backtest sma_cross": (2, "Missing option '--symbol'."),
    "backtest --symbol BTCUSDT": (2, "Missing argument 'STRATEGY'."),
    "RUN --stoploss 0.1": (2, "No such option: --stoploss"),
    "data gaps BTCUSDT 4hh": (2, "Unknown timeframe '4hh'.\n  Nearest: 4h"),
    "data gaps BTCUSDT --provider binanse": (2, "Unknown provider 'binanse'.\n  Nearest: binance"),
    "data gaps BTCUSDT": (3, "No candles of binance BTCUSDT 1h are stored.\n  Nothing is stored yet"),
    "data rules BTCC": (2, "'BTCC' is not a symbol."),
    "strategies show sma": (10, "Unknown strategy 'sma'."),
    "strategies new class": (2, "'class' cannot be a strategy's name."),
    "strategies new ../up": (2, "'../up' cannot be a strategy's name."),
    # files
    "backtest sma_cross --symbol BTCUSDT --data candles": (
        2,
        "Data file candles does not exist.\n  Nearest: candles.csv.",
    ),
    "backtest sma_cross --symbol BTCUSDT --timeframe 60m": (
        2,
        "Unknown timeframe '60m'.\n  Write 1h, which is as long.",
    ),
    "data gaps BTCUSDT 2h --data candles.csv": (
        3,
        "candles.csv holds 1h candles, not 2h.\n  Use the argument TIMEFRAME 1h.",
    ),
    "RUN --seed 3": (2, "--seed 3 means nothing here: the candles are not simulated.\n  Leave it out, or use"),
    "RUN --export EMPTY": (2, "Invalid value for '--export': an empty text is not a path."),
    "RUN --policy EMPTY": (2, "Invalid value for '--policy': an empty text is not a path."),
    "data import EMPTY --symbol BTCUSDT": (2, "Invalid value for 'FILE': an empty text is not a path."),
    "RUN --export candles.csv": (2, "--export candles.csv: candles.csv is a file."),
    "RUN -p fast=100 -p slow=100": (
        2,
        "sma_cross: fast (100) must be below slow (100).\n  As in -p fast=20 -p slow=100",
    ),
    "RUN --policy .": (2, "Policy file . is a folder, not a file.\n  It is a TOML file of policy values"),
    "models show BTCUSDT --version 1": (10, "There is no basic model for BTCUSDT in version 1.\n  "),
    "models show BTCUSDT --kind foo": (10, "There is no foo model for BTCUSDT.\n  Known: basic."),
    "models show BTCUSDT --timeframe 4h": (10, "There is no basic model for BTCUSDT with 4h candles.\n  Nearest: 1h."),
    "models show FOOUSDT": (10, "There is no basic model for FOOUSDT.\n  Nearest: ETHUSDT, BTCUSDT."),
    "backtest ml_basic --symbol BTCUSDT --data candles.csv --model-version 2024": (
        10,
        "There is no basic model for BTCUSDT 1h in version 2024. There is: ",
    ),
    "RUN --data candles.csv": (
        2,
        "--symbol was given once, --data 2 times.\n  Give one --data for each --symbol, in order.",
    ),
    "RUN --symbol BTC-USDT --data candles.csv": (2, "--symbol BTCUSDT was given more than once."),
    "RUN --provider simulated": (2, "--data and --provider simulated exclude each other."),
    "backtest sma_cross --symbol BTCUSDT --provider file": (
        2,
        "--provider file needs a file.\n  Add --data candles.parquet.",
    ),
    "backtest sma_cross --symbol BTCUSDT --data candels.csv": (
        2,
        "Data file candels.csv does not exist.\n  Nearest: candles.csv",
    ),
    "backtest sma_cross --symbol BTCUSDT --data .": (2, "Data file . is a folder, not a file."),
    "RUN --timeframe 4h": (3, "candles.csv holds 1h candles, not 4h.\n  Use --timeframe 1h."),
    "backtest sma_cross --symbol BTCUSDT --data empty.csv": (3, "empty.csv is empty."),
    "backtest sma_cross --symbol BTCUSDT --data header.csv": (3, "header.csv holds no candles."),
    "backtest sma_cross --symbol BTCUSDT --data cut.parquet": (3, "cut.parquet cannot be read as Parquet"),
    "backtest sma_cross --symbol BTCUSDT --data word.csv": (
        3,
        "word.csv: column close, line 6: 'abc' is not a number.",
    ),
    "backtest sma_cross --symbol BTCUSDT --data nan.csv": (
        3,
        "nan.csv: column close, line 6 (2024-01-01T04:00:00Z): nan is not a number.",
    ),
    "backtest sma_cross --symbol BTCUSDT --data negative.csv": (
        3,
        "negative.csv: column close, line 6 (2024-01-01T04:00:00Z): -1 is not above 0.",
    ),
    "backtest sma_cross --symbol BTCUSDT --data twice.csv": (
        3,
        "twice.csv: column open_time, line 7: 2024-01-01T04:00:00Z repeats the one before it.\n  Sort the file",
    ),
    "backtest sma_cross --symbol BTCUSDT --data unsorted.csv": (
        3,
        "unsorted.csv: column open_time, line 7: 2024-01-01T03:00:00Z is earlier than the one before it.",
    ),
    "backtest sma_cross --symbol BTCUSDT --data gappy.csv": (
        3,
        "BTCUSDT: 50 of 300 candles are missing (16.7%, more than 2.0%); the largest gap, 50 candles, "
        "starts at 2024-01-05T04:00:00Z.\n  Use --allow-gaps",
    ),
    "data import negative.csv --symbol BTCUSDT": (3, "negative.csv: column close, line 6"),
    "data import candles.csv --symbol BTCUSDT --timeframe 2h": (3, "candles.csv holds 1h candles, not 2h."),
    "data import candles.csv --symbol BTCUSDT --provider simulated": (
        2,
        "Unknown provider 'simulated'.\n  Known: binance, coinbase.",
    ),
    "data import candles.csv": (2, "Missing option '--symbol'."),
    "strategies check sma_cross --data negative.csv": (3, "negative.csv: column close, line 6"),
    "strategies check sma_cross --candles -1": (2, "--candles must be 0 or more, not -1."),
    "strategies check sma_cross --candles 7": (3, "7 candles are too few to check sma_cross, which looks back 100."),
    # ranges
    "RUN --start 2024-02-01 --end 2024-01-01": (
        2,
        "--start 2024-02-01 00:00 is not before --end 2024-01-01 00:00.\n  The end is exclusive.",
    ),
    "RUN --start 2024-01-05 --end 2024-01-05": (2, "--start 2024-01-05 00:00 is not before --end"),
    "RUN --start 2025-01-01": (
        3,
        "candles.csv has candles from 2024-01-01 00:00 to 2024-01-13 12:00, none in the range asked for.",
    ),
    "RUN --end 2023-01-01": (
        3,
        "candles.csv has candles from 2024-01-01 00:00 to 2024-01-13 12:00, none in the range asked for.",
    ),
    "RUN --start yesterday": (2, "--start 'yesterday' is not a date.\n  Write 2024-01-31 or 2024-01-31T12:00."),
    "RUN --end 9999-01-01": (2, "--end '9999-01-01' is not in the years 1970 to 2199."),
    "RUN --days 0": (2, "--days (or --years) must be above 0"),
    "RUN --days -1": (2, "--days (or --years) must be above 0"),
    "RUN --days nan": (2, "--days (or --years) must be above 0"),
    "RUN --days inf": (2, "--days (or --years) must be above 0"),
    "RUN --years 1e300": (2, "--days (or --years) must be above 0"),
    "RUN --days 3 --years 1": (2, "--days and --years exclude each other."),
    "RUN --days 3 --start 2024-01-01": (2, "--days (or --years) and --start exclude each other."),
    "backtest sma_cross --symbol BTCUSDT --provider simulated --timeframe 1s --years 90": (
        2,
        "More than 100,000,000 simulated candles.",
    ),
    "RUN -p slow=300": (3, "BTCUSDT: 300 candles in the range and 0 before it are too few: sma_cross looks back 300"),
    "RUN -p slow=5000": (3, "BTCUSDT: 300 candles in the range and 0 before it are too few: sma_cross looks back 5000"),
    # numbers
    "RUN --initial-balance 0": (2, "--initial-balance must be above 0"),
    "RUN --initial-balance -5": (2, "--initial-balance must be above 0"),
    "RUN --initial-balance nan": (2, "--initial-balance must be above 0"),
    "RUN --initial-balance inf": (2, "--initial-balance must be above 0"),
    "RUN --initial-balance ten": (2, "Invalid value for '--initial-balance': 'ten' is not a number."),
    "RUN --fee-bps -1": (2, "--fee-bps must be from 0 to 1000 basis points, not -1."),
    "RUN --fee-bps nan": (2, "--fee-bps must be from 0 to 1000 basis points, not nan."),
    "RUN --slippage-bps inf": (2, "--slippage-bps must be from 0 to 1000 basis points, not inf."),
    "RUN --max-gaps 2": (2, "--max-gaps must be a share from 0 to 1, not 2."),
    "RUN --max-gaps nan": (2, "--max-gaps must be a share from 0 to 1, not nan."),
    "RUN --seed x": (2, "Invalid value for '--seed': 'x' is not a whole number."),
    "RUN --fraction 0": (2, "--fraction must be a number from 1e-06 to 1, not 0.0."),
    "RUN --fraction -0.5": (2, "--fraction must be a number from 1e-06 to 1, not -0.5."),
    "RUN --fraction nan": (2, "--fraction must be a number from 1e-06 to 1, not nan."),
    "RUN --take-profit inf": (2, "--take-profit must be a number from 0 to 1e+06, not inf."),
    "RUN --max-hold 1.5": (2, "Invalid value for '--max-hold': '1.5' is not a whole number."),
    "RUN --partial-exits 0.1": (2, "--partial-exits '0.1' is not GAIN:SHARE."),
    "RUN --sizing all": (2, "--sizing must be fraction or risk or confidence, not 'all'."),
    "RUN --sizing risk --stop-loss 0": (2, "the policy in force: sizing risk needs a stop"),
    "RUN --direction short": (2, "--direction short: a short was asked for; atb trades spot, which is long only."),
    "RUN --engine fast": (2, "--engine must be auto, plain or compiled, not 'fast'."),
    "RUN -p fast": (2, "--param 'fast' is not NAME=NUMBER."),
    "RUN -p fast=ten": (2, "--param 'fast=ten' is not NAME=NUMBER."),
    "RUN -p fsat=3": (2, "sma_cross has no parameter 'fsat'.\n  Nearest: fast."),
    "RUN -p fast=nan": (2, "sma_cross: fast must be a number, not nan."),
    "RUN -p fast=1": (2, "sma_cross: fast must be from 2 to 1000, not 1."),
    "RUN -p fast=3 -p fast=4": (2, "--param fast was given more than once."),
    "RUN --model-version 3": (2, "sma_cross has no model, so --model-version 3 means nothing."),
    # policy files
    "RUN --policy wrongg.toml": (2, "Policy file wrongg.toml does not exist.\n  Nearest: wrong.toml"),
    "RUN --policy candles.csv": (2, "Policy file candles.csv is not TOML"),
    "RUN --policy unknown.toml": (2, "unknown.toml: unknown field 'stop_los'.\n  Nearest: stop_loss"),
    "RUN --policy wrong.toml": (2, "wrong.toml: stop_loss must be a number from 0 to 0.999, not '0.1'."),
    "RUN --policy short.toml": (2, "short.toml: direction short: a short was asked for"),
    # the user's own strategies
    "OWN syntax": (10, "strategies/syntax.py, line 2: invalid syntax: def f(:"),
    "OWN imports": (10, "strategies/imports.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
    "OWN two": (
        10,
        "strategies/two.py must define exactly one class derived from atb.strategy.Strategy (found: A, B).",
    ),
    "OWN shape": (10, "strategies/shape.py, line 8: signals() returned shape (3,) for 300 candles."),
    "OWN silent": (
        10,
        "strategies/silent.py, line 8: the signal of candle 50 (2024-01-03 02:00) is NaN, after the warm-up of 1 candle (1",
    ),
    "OWN fails": (10, "strategies/fails.py, line 9: ZeroDivisionError: float division by zero"),
    "OWN quits": (10, "strategies/quits.py, line 9: SystemExit: 3"),
    "OWN large": (10, "strategies/large.py, line 8: the signal of candle 0 (2024-01-01 00:00) is 2, outside [-1, 1]."),
    "OWN peeks": (10, "strategies/peeks.py, line 8: look-ahead: the signal of candle "),
    "OWN shorts": (10, "strategies/shorts.py: policy: direction short: a short was asked for"),
}

OWN = {
    "syntax": "import numpy\ndef f(:\n",
    "imports": "import numpy\nimport no_such_module\n",
    "two": HEAD + "return candles.close * 0\n\nclass B(A):\n    pass\n",
    "shape": HEAD + "return np.zeros(3)\n",
    "silent": HEAD + "return np.where(np.arange(len(candles)) == 50, np.nan, 0.0)\n",
    "fails": HEAD + "return 1.0 / 0 + candles.close\n",
    "quits": HEAD + "raise SystemExit(3)\n",
    "large": HEAD + "return np.full(len(candles), 2.0)\n",
    "peeks": PEEKS,
    "shorts": scripted("{'direction': 'short'}"),
}


def bad_files(shell: Shell) -> None:
    """The candles of candles.csv, spoilt in every way that BAD names."""
    lines = walk_file(300).splitlines()

    def with_close(text: str) -> list[str]:
        fields = lines[5].split(",")
        return [*lines[:5], ",".join([*fields[:4], text, fields[5]]), *lines[6:]]

    files = {
        "candles": lines, "empty": [], "header": lines[:1], "word": with_close("abc"), "nan": with_close("NaN"),
        "negative": with_close("-1"), "twice": [*lines[:6], lines[5], *lines[6:]],
        "unsorted": [*lines[:6], *lines[4:5], *lines[6:]], "gappy": [*lines[:101], *lines[151:]],
    }  # fmt: skip
    for name, content in files.items():
        shell.write(f"{name}.csv", "".join(line + "\n" for line in content))
    shell.write("cut.parquet", b"PAR1" + bytes(200))
    for name, text in (("unknown", "stop_los = 0.1"), ("wrong", "stop_loss = '0.1'"), ("short", "direction = 'short'")):
        shell.write(f"{name}.toml", text)
    for name, source in OWN.items():
        shell.write(f"strategies/{name}.py", source)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    shell = Shell(tmp_path_factory.mktemp("bad"), ATB_BINANCE_API_URL="http://127.0.0.1:9")
    bad_files(shell)
    before = shell.files()
    spelt = [text.replace("OWN", "backtest").replace("RUN", " ".join(RUN)) for text in BAD]
    commands = [
        (*s.split(), "--symbol", "BTCUSDT", "--data", "candles.csv")
        if text.startswith("OWN")
        else tuple(word.replace("EMPTY", "") for word in s.split())
        for s, text in zip(spelt, BAD, strict=True)
    ]
    yield dict(zip(BAD, shell.many(commands), strict=True))
    assert shell.files() == before  # nothing was written, by none of them


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_refused_with_a_message_and_its_exit_code(refusals: dict[str, Ran], command: str) -> None:
    ran, (code, message) = refusals[command], BAD[command]
    assert ran.code == code, ran.err
    assert f"Error: {message}" in ran.err
    assert ran.out == ""


def test_the_hint_of_an_unknown_model_version_names_the_ones_there_are(refusals: dict[str, Ran]) -> None:
    told = refusals["backtest ml_basic --symbol BTCUSDT --data candles.csv --model-version 2024"].err
    assert re.search(r"\n  Leave out --model-version, or use 20\d\d\.\S+\.\n", told)
    assert re.search(r"(Nearest|Known): 20\d\d\.", refusals["models show BTCUSDT --version 1"].err)


# --- what may not be read


@pytest.fixture
def locked(shell: Shell) -> Iterator[Shell]:
    """A shell in whose folder everything named `locked` may not be read."""
    names = ("strategies", "models", "locked.csv", "locked.toml")
    for name in names[:2]:
        (shell.work / name).mkdir()
    for name in names[2:]:
        shell.write(name, "x")
    (shell.home / "candles").mkdir(parents=True)
    paths = [shell.work / name for name in names] + [shell.home / "candles"]
    for path in paths:
        path.chmod(0)
    yield shell
    for path in paths:
        path.chmod(0o700)


@pytest.mark.parametrize(
    ("command", "code", "what", "hint"),
    [
        ("strategies list", 10, "The folder strategies cannot be read: Permission denied.", "chmod u+rx 'strategies'"),
        ("models list", 10, "The folder models cannot be read: Permission denied.", "chmod u+rx 'models'"),
        ("data list", 3, "HOME/candles cannot be read: Permission denied.", "ATB_HOME"),
        (
            "data gaps BTCUSDT",
            3,
            "HOME/candles/venue=binance/market=spot/symbol=BTCUSDT/timeframe=1h cannot be read: Permission denied.",
            "ATB_HOME",
        ),
        (
            "data gaps BTCUSDT --data locked.csv",
            3,
            "locked.csv cannot be read: Permission denied.",
            "ls -ld 'locked.csv'",
        ),
    ],
)
def test_what_may_not_be_read_is_named_and_not_taken_for_empty(
    locked: Shell, command: str, code: int, what: str, hint: str
) -> None:
    ran = locked(*command.split(), preexec_fn=without_powers)
    assert (ran.code, ran.message) == (code, what.replace("HOME", str(locked.home)))
    assert hint in ran.err and "whole" not in ran.err and ran.out == ""


def test_a_policy_that_may_not_be_read(locked: Shell) -> None:
    (locked.work / "strategies").chmod(0o700)
    ran = locked(*RUN, "--policy", "locked.toml", preexec_fn=without_powers)
    assert (ran.code, ran.message) == (2, "Policy file locked.toml cannot be read: Permission denied.")
    assert "ls -ld 'locked.toml'" in ran.err


def test_a_name_that_the_locale_cannot_spell(shell: Shell) -> None:
    shell.write("kürse.csv", walk_file(20))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = shell("data", "gaps", "BTCUSDT", "--data", "kürse.csv", env=ascii_only)
    assert ran.code == 2 and "has letters that this locale lacks" in ran.message and "LC_ALL=C.UTF-8" in ran.err
    assert shell("data", "gaps", "BTCUSDT", "--data", "kürse.csv", ok=True, env={"LC_ALL": "C"}).code == 0
