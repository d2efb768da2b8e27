"""The command line as a stranger meets it: output for people and for programs, and whole ways through the product."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.integration.market import HEAD, PEEKS, Bar, candle_file, scripted, walk_file
from tests.integration.shell import ESCAPE, RUN, SHORT, Shell, plain, stable

ROOT = Path(__file__).resolve().parents[2]


# --- output


def test_json_has_the_documented_keys(shell: Shell) -> None:
    documented = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "json.md").read_text(), re.MULTILINE)
    names = {name for cell in documented for name in re.findall(r"`(\w+)`", cell)}
    result = shell(*RUN, *SHORT, "--json", ok=True).json
    assert set(result) == names
    assert result["trades"] and result["fills"]


def test_json_of_every_command(shell: Shell) -> None:
    shell("data", "import", "candles.csv", "--symbol", "BTCUSDT", ok=True)
    commands = [
        ("data", "list"), ("data", "gaps", "BTCUSDT"), ("data", "rules", "BTCUSDT"), ("strategies", "list"),
        ("strategies", "show", "sma_cross"),
        ("strategies", "check", "sma_cross", "--data", "candles.csv", "-p", "fast=10", "-p", "slow=20"),
        ("models", "list"), ("models", "verify"),
    ]  # fmt: skip
    listed, gaps, rules, strategies, shown, checked, *_ = (
        ran.json for ran in shell.many([(*c, "--json") for c in commands])
    )
    assert [(row["symbol"], row["from"], row["to"]) for row in listed] == [
        ("BTCUSDT", "2024-01-01T00:00:00Z", "2024-01-13T12:00:00Z")
    ]
    assert gaps["rows"] == 300 and gaps["gaps"] == []
    assert rules["symbol"] == "BTCUSDT" and rules["date"]
    assert {row["origin"] for row in strategies} == {"shipped"}
    assert shown["params"][0]["name"] == "fast" and shown["lookback_bars"] == 100
    assert checked == {"passed": True, "candles": 300, "checked": 281, "findings": []}


def test_a_pipe_gets_plain_rows(shell: Shell) -> None:
    shell("data", "import", "candles.csv", "--symbol", "BTCUSDT", ok=True)
    listed, rules, report, shown = (
        ran.out
        for ran in shell.many(
            [("data", "list"), ("data", "rules", "BTCUSDT"), (*RUN, *SHORT), ("strategies", "show", "sma_cross")]
        )
    )  # fmt: skip
    assert listed.splitlines()[0].split("\t") == [
        "venue",
        "market",
        "symbol",
        "timeframe",
        "from",
        "to",
        "parts",
        "bytes",
    ]
    assert rules.splitlines()[1].split("\t")[:4] == ["BTCUSDT", "0.00001", "0.01", "5"]
    assert "\nend equity\t" in report and "\nstrategy\tsma_cross fast=2 slow=5\n" in report
    assert "param fast\t20  (2 to 1000) window of the fast average, candles" in shown
    for text in (listed, rules, report, shown):
        assert not re.search(r"[\x1b━│┃─▁█]", text)


@pytest.mark.parametrize("columns", [120, 80, 50])
def test_a_terminal_gets_tables_that_fit(shell: Shell, columns: int) -> None:
    for args in ((*RUN, *SHORT), ("strategies", "list"), ("data", "rules", "BTCUSDT")):
        ran = shell.on_terminal(*args, columns=columns)
        assert ran.code == 0
        lines = plain(ran.out).splitlines()
        wide = [
            line for line in lines if len(line.rstrip()) > columns and not line.startswith(("Note:", "***", "WARNING"))
        ]
        assert wide == []
        assert "\x1b[1m" in ran.out  # bold headers
        assert "\t" not in ran.out


def test_the_chart_spans_the_whole_run(shell: Shell) -> None:
    shell.write("strategies/scripted.py", scripted())
    rise = [Bar(100, 1.0), *(Bar(100 * 1.01**i) for i in range(1, 200))]
    shell.write("rise.csv", candle_file(rise))
    ran = shell.on_terminal(
        "backtest", "scripted", "--symbol", "BTCUSDT", "--data", "rise.csv", "--fraction", "1", "--max-position", "1"
    )
    chart = [line for line in plain(ran.out).splitlines() if "█" in line]
    assert len(chart) >= 8
    assert max(map(len, chart)) >= 70
    assert len(chart[0].rstrip()) == max(len(line.rstrip()) for line in chart)  # the end is the top


def test_progress_fits_a_narrow_terminal_and_is_taken_back(shell: Shell) -> None:
    shell.write(
        "strategies/slow.py", HEAD + "__import__('time').sleep(0.0005)\n        return np.sign(candles.close - 1e9)\n"
    )
    args = ("strategies", "check", "slow", "--candles", "1500")
    ran = shell.on_terminal(*args, columns=30)
    moving = [line for line in re.split(r"[\r\n]", plain(ran.out)) if "checking" in line]
    assert moving and all(len(line) < 30 for line in moving)
    assert "slow: passed" in plain(ran.out)
    assert "checking" not in plain(ran.out).split("slow: passed")[0].split("\r")[-1]
    ran = shell("strategies", "check", "sma_cross", "--candles", "300", ok=True)
    assert ran.err == ""  # no bar in a log for a moment


def test_errors_are_coloured_on_a_terminal_only(shell: Shell) -> None:
    args = ("backtest", "sma_cros", "--symbol", "BTCUSDT")
    assert "\x1b[" in shell.on_terminal(*args).out
    assert not ESCAPE.search(shell(*args).err)


def test_nor_where_colour_is_not_wanted(shell: Shell) -> None:
    shell.write(".env", "ATB_HOEM=x\n")
    args = ("backtest", "sma_cros", "--symbol", "BTCUSDT")
    assert shell.on_terminal(*args).out.count("\x1b[3") == 2  # "Note:" and "Error:"
    for ran in (shell.on_terminal(*args, NO_COLOR="1"), shell.on_terminal(*args, TERM="dumb")):
        assert not ESCAPE.search(ran.out) and "Note: " in ran.out and "Error: Unknown strategy" in ran.out


def test_an_oddity_of_the_settings_file_is_noted_once_and_does_no_harm(shell: Shell) -> None:
    shell.write(".env", "ATB_HOEM=x\n")
    ran = shell(*RUN, "--json", ok=True)
    assert (
        ran.err == f"Note: {shell.work}/.env, line 1: atb knows no ATB_HOEM. Nearest: ATB_HOME, ATB_CACHE, ATB_SIDES.\n"
    )
    assert ran.json["schema"] == 1


def test_a_terminal_in_the_locale_c_gets_ascii_only(shell: Shell) -> None:
    run = (*RUN, *SHORT)
    for ran in (shell.on_terminal(*run, LC_ALL="C"), shell.on_terminal(*run, PYTHONIOENCODING="ascii")):
        shown = plain(ran.out)
        assert shown.isascii() and "equity" in shown and "?" not in shown
        assert re.search(r"^ +[\d,.]+ .*#", shown, re.MULTILINE)  # the chart
    assert "█" in shell.on_terminal(*RUN, *SHORT).out


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_numbers_stay_whole_at_any_width(shell: Shell, columns: int) -> None:
    """A year across a model's dates, so that there are four columns of figures."""
    shell.write("long.csv", walk_file(9_000, start_ms=1_717_200_000_000))  # 2024-06-01
    args = ("backtest", "ml_basic", "--symbol", "BTCUSDT", "--data", "long.csv")
    expected = [line.split("\t") for line in shell(*args, ok=True).out.splitlines()]
    figures = next(row for row in expected if row[0] == "end equity")[1:]
    assert len(figures) == 4
    shown = plain(shell.on_terminal(*args, columns=columns).out)
    assert all(re.search(rf"(?<![\d,.]){figure}(?![\d,.])", shown) for figure in figures)
    assert shown.count("statistic ") == (4 if columns < 80 else 1)
    assert all(len(line.rstrip()) <= columns for line in shown.splitlines() if "max drawdown" in line)


def test_the_list_of_models_fits_80_columns(shell: Shell) -> None:
    lines = plain(shell.on_terminal("models", "list").out).splitlines()
    rows = [line for line in lines if re.search(r"(BTC|ETH)USDT/basic/\S+ +1h +\d{4}-\d\d-\d\d ", line)]
    assert len(rows) >= 2 and max(map(len, lines)) <= 80
    assert all(row["folder"] for row in shell("models", "list", "--json", ok=True).json)


def test_simulated_is_said_at_both_ends(shell: Shell) -> None:
    args = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", "30")
    lines = shell(*args, ok=True).out.splitlines()
    assert "SIMULATED" in lines[0] and "SIMULATED" in lines[-1]
    assert shell(*args, "--json", ok=True).json["simulated"] is True


def test_what_a_strategy_prints_does_not_spoil_the_json(shell: Shell) -> None:
    shell.write(
        "strategies/chatty.py", "print('hello')\n" + HEAD + "print('thinking')\n        return candles.close * 0\n"
    )
    ran = shell("backtest", "chatty", "--symbol", "BTCUSDT", "--data", "candles.csv", "--json", ok=True)
    assert ran.json["fills"] == []
    assert "hello" in ran.err and "thinking" in ran.err


def test_characters_that_the_terminal_cannot_show_are_no_failure(shell: Shell) -> None:
    shell.write(
        "strategies/ümlaut.py",
        HEAD.replace("class A(Strategy):", 'class A(Strategy):\n    """Überblick → €."""')
        + "return candles.close * 0\n",
    )
    ran = shell("strategies", "list", ok=True, env={"PYTHONIOENCODING": "ascii", "LANG": "C"})
    assert "berblick" in ran.out


# --- longer ways through the product


def test_a_strategy_from_the_first_line_to_a_report(shell: Shell) -> None:
    new = shell("strategies", "new", "my_idea", ok=True)
    assert new.out == "" and "Wrote strategies/my_idea.py" in new.err
    assert shell("strategies", "new", "my_idea").code == 2
    listed = shell("strategies", "list", "--json", ok=True).json
    assert {row["name"]: row["origin"] for row in listed}["my_idea"] == "strategies/my_idea.py"
    assert "passed (251 of 300 candles" in shell("strategies", "check", "my_idea", "--data", "candles.csv", ok=True).out
    ran = shell(
        "backtest",
        "my_idea",
        "--symbol",
        "BTCUSDT",
        "--data",
        "candles.csv",
        "-p",
        "window=10",
        "--export",
        "out",
        "--json",
        ok=True,
    )
    assert ran.json["strategy"]["params"] == {"window": 10} and ran.json["strategy"]["shipped"] is False
    assert json.loads((shell.work / "out" / "result.json").read_text())["trades"] == ran.json["trades"]
    assert "Wrote out/report.html" in ran.err
    shadow = shell("strategies", "new", "sma_cross", ok=True)
    assert "instead of the sma_cross that comes with atb" in shadow.err


def test_a_check_that_fails_exits_10_and_names_the_candle(shell: Shell) -> None:
    shell.write("strategies/peeks.py", PEEKS)
    ran = shell("strategies", "check", "peeks", "--data", "candles.csv", "--json")
    assert ran.code == 10
    assert ran.json["passed"] is False and ran.json["findings"][0]["kind"] == "future"
    told = shell("strategies", "check", "peeks", "--data", "candles.csv")
    assert told.code == 10 and "peeks: FAILED" in told.out and "look-ahead" in told.out


def test_a_broken_strategy_does_not_hide_the_others(shell: Shell) -> None:
    shell.write("strategies/quits.py", "import sys\nsys.exit(3)\n")
    rows = {row["name"]: row["summary"] for row in shell("strategies", "list", "--json", ok=True).json}
    assert rows["quits"].startswith("BROKEN: strategies/quits.py, line 2: SystemExit: 3")
    assert "BROKEN" not in rows["sma_cross"]


def test_importing_and_looking(shell: Shell) -> None:
    lines = walk_file(300).splitlines(keepends=True)
    shell.write("gappy.csv", "".join([*lines[:101], *lines[151:]]))
    ran = shell("data", "import", "gappy.csv", "--symbol", "BTC/USDT", ok=True)
    assert ran.out == "" and "Stored 250 candles of BTCUSDT 1h (50 missing; see: atb data gaps BTCUSDT 1h)" in ran.err
    gaps = shell("data", "gaps", "BTCUSDT", ok=True)
    assert gaps.out == "first_missing\tmissing\n2024-01-05T04:00:00Z\t50\n"
    assert "50 missing (16.667%) in 1 gap;" in gaps.err
    run = ("backtest", "sma_cross", "--symbol", "BTCUSDT", "--json")
    assert shell(*run).code == 3
    allowed = shell(*run, "--allow-gaps", ok=True).json
    assert allowed["data"][0]["missing_candles"] == 50 and "16.7% of the candles are missing (allowed)" in " ".join(
        allowed["notes"]
    )
    assert shell(*run, "--max-gaps", "0.2", ok=True).json["data"][0]["largest_gap_candles"] == 50
    wrong = shell("data", "gaps", "BTCUSDT", "4h")
    assert wrong.code == 3 and "Nearest: binance BTCUSDT 1h." in wrong.err


def stored_close(shell: Shell, day: str) -> float:
    """The end equity of holding from `day` on: shows which candles are stored."""
    args = ("backtest", "buy_and_hold", "--symbol", "BTCUSDT", "--offline", "--start", day, "--json")
    return float(shell(*args, ok=True).json["statistics"]["market_change"])


def test_what_to_do_next_names_the_provider_where_it_must(shell: Shell) -> None:
    lines = walk_file(300).splitlines(keepends=True)
    shell.write("gappy.csv", "".join([*lines[:101], *lines[102:]]))
    ran = shell("data", "import", "gappy.csv", "--symbol", "BTC-USD", "--provider", "coinbase", ok=True)
    told = re.search(r"1 missing; see: atb (data gaps BTC-USD 1h --provider coinbase)\)", ran.err)
    assert told and "1 missing (0.333%) in 1 gap;" in shell(*told[1].split(), ok=True).err


def test_rules_that_are_assumed_say_so(shell: Shell) -> None:
    ran = shell("data", "rules", "FOOUSDT", "--json", ok=True)
    assert ran.json["source"] == "assumed"
    assert ran.err == (
        f"Note: FOOUSDT is not in the table of {ran.json['date']}: its lot, tick and minimum notional are assumed. "
        "Ask the exchange: atb data rules FOOUSDT --refresh\n"
    )
    assert shell("data", "rules", "BTCUSDT", ok=True).err == ""


def test_a_model_trained_here_is_shown_by_what_the_command_says(shell: Shell) -> None:
    pytest.importorskip("onnx")
    shell.write("long.csv", walk_file(4_000))
    run = ("models", "train", "basic", "--symbol", "BTCUSDT", "--data", "long.csv", "--training-end", "2024-05-01")
    told = shell(*run, "--validation-end", "2025-01-01", ok=True).err
    assert "Note: No out-of-sample part is left: the candles end on 2024-06-15" in told
    command = re.search(r"atb (models show BTCUSDT --version 2024\.05\.1)\n", told)
    assert command and shell(*command[1].split(), "--json", ok=True).json["version"] == "2024.05.1"
    late = shell(*run[:-1], "2025-01-01", "--validation-end", "2025-02-01")
    assert late.code == 2 and late.message == "Training cannot end on 2025-01-01: the candles end on 2024-06-15."
    elsewhere = shell(*run, "--validation-end", "2024-06-01", "--out", "other", ok=True)
    assert "looked for in ./models, not in other" in elsewhere.err and "Note:" not in elsewhere.err
    newest = shell("models", "show", "BTCUSDT", "--json", ok=True).json["version"]
    shell.write("models/BTCUSDT/basic/2024.05.1/model.onnx", "")
    assert shell("models", "show", "BTCUSDT", "--json", ok=True).json["version"] == newest


@pytest.mark.slow
def test_a_second_version_of_a_candle_is_refused_unless_it_replaces_the_first(shell: Shell) -> None:
    lines = walk_file(300).splitlines(keepends=True)
    fields = lines[300].split(",")
    other = ",".join([*fields[:2], "99999.0", *fields[3:4], "99998.0", fields[5]])
    shell.write("other.csv", "".join([*lines[:300], other]))
    run = ("data", "import", "--symbol", "BTCUSDT")
    assert "Stored 300 candles" in shell(*run, "candles.csv", ok=True).err
    assert "Stored 0 candles of BTCUSDT 1h; 300 were there already" in shell(*run, "candles.csv", ok=True).err
    change, before = stored_close(shell, "2024-01-02"), shell.files()
    refused = shell(*run, "other.csv")
    assert refused.code == 3 and shell.files() == before
    assert refused.message.startswith("1 candle differs from the one that is stored, the first at 2024-01-13T11:00:00Z")
    assert "--replace" in refused.err
    shell(*run, "other.csv", "--replace", ok=True)
    assert stored_close(shell, "2024-01-02") > change + 1
    shell(*run, "candles.csv", "--replace", ok=True)
    assert stored_close(shell, "2024-01-02") == change


def test_parts_that_contradict_each_other_are_mended_by_what_the_message_says(shell: Shell) -> None:
    run = ("data", "import", "candles.csv", "--symbol", "BTCUSDT")
    shell(*run, ok=True)
    (part,) = shell.home.rglob("import-*.parquet")
    aside = shell.work / part.name
    part.rename(aside)
    shell("data", "import", shell.write("other.csv", walk_file(300, 2)), "--symbol", "BTCUSDT", ok=True)
    aside.rename(part)
    told = shell("backtest", "sma_cross", "--symbol", "BTCUSDT")
    assert (
        told.code == 3 and "contradict each other" in told.message and "--replace" in told.err and "repair" in told.err
    )
    shell(*run, "--replace", ok=True)
    given = stable(shell(*RUN, "--json"))["data"][0]["sha256"]
    assert stable(shell("backtest", "sma_cross", "--symbol", "BTCUSDT", "--json"))["data"][0]["sha256"] == given


def test_candles_that_have_not_closed_are_not_imported(shell: Shell) -> None:
    now = int(time.time() * 1000) // 3_600_000 * 3_600_000
    shell.write("recent.csv", walk_file(50, start_ms=now - 47 * 3_600_000))
    ran = shell("data", "import", "recent.csv", "--symbol", "BTCUSDT", ok=True)
    assert "Stored 47 candles" in ran.err or "Stored 48 candles" in ran.err  # the hour may have turned
    assert "candles have not closed yet and are left out" in ran.err
    shell.write("future.csv", walk_file(5, start_ms=now + 3_600_000 * 5))
    future = shell("data", "import", "future.csv", "--symbol", "ETHUSDT")
    assert future.code == 3 and "No candle has closed yet" in future.message


def test_several_symbols_share_one_account(shell: Shell) -> None:
    shell.write("eth.csv", walk_file(250, 2))
    ran = shell(*RUN, "--symbol", "ETHUSDT", "--data", "eth.csv", *SHORT, "--json", ok=True).json
    assert ran["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert {trade["symbol"] for trade in ran["trades"]} == {"BTCUSDT", "ETHUSDT"}
    assert [facts["rows"] for facts in ran["data"]] == [300, 250]


def test_a_settings_file_that_is_wrong_is_told(shell: Shell) -> None:
    shell.write(".env", "ATB_BINANCE_API_URL=nonsense\n")
    assert shell(*RUN).code == 0  # nobody is asked
    ran = shell("backtest", "sma_cross", "--symbol", "BTCUSDT", "--days", "3")
    assert ran.code == 2 and ran.message == "ATB_BINANCE_API_URL='nonsense' is not a URL."


def test_real_candles(shell: Shell, real_data: Path) -> None:
    args = (
        "backtest",
        "sma_cross",
        "--symbol",
        "BTCUSDT",
        "--data",
        real_data / "binance_BTCUSDT_1h.parquet",
        "--start",
        "2024-01-01",
        "--end",
        "2025-01-01",
    )
    result = shell(*args, "--json", ok=True).json
    assert result["data"][0]["rows"] == 8784 and result["data"][0]["missing_candles"] == 0
    assert result["notes"] == []
    assert result["statistics"]["market_change"] == pytest.approx(1.21, abs=0.05)


def test_coinbase_s_candles_and_rules(shell: Shell) -> None:
    ran = shell(
        "backtest",
        "sma_cross",
        "--symbol",
        "BTC-USD",
        "--data",
        "candles.csv",
        "--provider",
        "coinbase",
        "--json",
        ok=True,
    ).json
    assert ran["symbols"] == ["BTC-USD"] and ran["market_rules"][0]["symbol"] == "BTC-USD"
    told = shell("data", "rules", "BTC-USD", "--provider", "coinbase", "--json", ok=True).json
    assert ran["market_rules"][0]["lot"] == told["lot"]
