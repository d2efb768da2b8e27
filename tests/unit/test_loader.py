"""Finding and loading strategies: whose comes first, and what is said about a file that is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from atb.core.errors import StrategyError, UsageError
from atb.settings import load_settings
from atb.strategy.contract import Strategy, param
from atb.strategy.loader import LoadedStrategy, find_strategies, load_strategy

SHIPPED = load_settings().shipped_strategies
GOOD = '''
from atb.strategy import Strategy, param


class Idea(Strategy):
    """One line.

    And more.
    """

    window: int = param(5, 2, 50, "candles")
    lookback_bars = 5

    def signals(self, candles):
        return candles.close * 0
'''


def loaded(folder: Path, source: str | bytes, name: str = "idea") -> LoadedStrategy:
    path = folder / f"{name}.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return load_strategy(name, find_strategies([folder], SHIPPED))


def told(folder: Path, source: str | bytes) -> str:
    with pytest.raises(StrategyError) as caught:
        loaded(folder, source)
    assert caught.value.exit_code == 10
    return caught.value.what.replace(str(folder / "idea.py"), "FILE")


def with_body(*lines: str) -> str:
    return "from atb.strategy import Strategy, param\nclass Idea(Strategy):\n" + "".join(
        f"    {line}\n" for line in lines
    )


SIGNALS = "def signals(self, candles): return candles.close * 0"


# --- finding


def test_the_shipped_strategies_are_all_found_and_load() -> None:
    files = find_strategies([], SHIPPED)
    assert {
        "ml_basic",
        "buy_and_hold",
        "sma_cross",
        "donchian_trend",
        "rsi_reversion",
        "bollinger_reversion",
        "vol_target_trend",
    } == set(files)
    for name, file in files.items():
        strategy = load_strategy(name, files)
        assert file.shipped and strategy.cls.summary() and strategy.cls.title() == name


def test_the_user_s_own_come_first(tmp_path: Path) -> None:
    mine = loaded(tmp_path, GOOD, "sma_cross")
    assert not mine.file.shipped and mine.file.path == tmp_path / "sma_cross.py"
    assert mine.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert mine.cls.summary() == "One line."


def test_the_first_folder_comes_first(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "idea.py").write_text(GOOD)
    assert find_strategies([tmp_path / "b", tmp_path / "a"], SHIPPED)["idea"].path == tmp_path / "b" / "idea.py"


def test_in_a_checkout_the_shipped_folder_is_not_taken_for_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED.parent)
    assert all(file.shipped for file in find_strategies([Path("strategies")], SHIPPED).values())


def test_what_is_no_strategy_file_is_not_found(tmp_path: Path) -> None:
    for name in ("_helper.py", "notes.txt", "__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.py").mkdir()
    assert set(find_strategies([tmp_path, tmp_path / "none"], SHIPPED)) == set(find_strategies([], SHIPPED))


def test_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="Unknown strategy 'sma_cros'") as caught:
        load_strategy("sma_cros", find_strategies([], SHIPPED))
    assert "sma_cross" in caught.value.hint and "atb strategies list" in caught.value.hint


# --- loading


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef f(:\n", "FILE, line 2: invalid syntax: def f(:"),
        ("class A:\n\tx = 1\n        y = 2\n", "FILE, line 3: "),
        (
            "import numpy\nimport no_such_module\n",
            "FILE, line 2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("from atb.strategy import Strateggy\n", "FILE, line 1: ImportError: "),
        ("x = 1\n\nraise ValueError('boom')\n", "FILE, line 3: ValueError: boom"),
        ("def f():\n    return 1 / 0\n\nf()\n", "FILE, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", "FILE, line 2: SystemExit: bye"),
        ("exit()\n", "FILE, line 1: "),
        (b"x = '\xe9'\n", "FILE, line 1: (unicode error)"),
        (b"x = 1\0\n", "FILE: SyntaxError: source code string cannot contain null bytes"),
        ("def f(): f()\nf()\n", "FILE, line 1: RecursionError: "),
        ("", "FILE must define exactly one class derived from atb.strategy.Strategy (found: none)."),
        (
            "from atb.strategy import Strategy\n",
            "FILE must define exactly one class derived from atb.strategy.Strategy (found: none).",
        ),
        (
            GOOD + "class Other(Idea):\n    pass\n",
            "FILE must define exactly one class derived from atb.strategy.Strategy (found: Idea, Other).",
        ),
        (with_body("lookback_bars = 3"), "FILE: class Idea defines no signals."),
        (with_body(SIGNALS), "FILE: class Idea defines no lookback_bars."),
        (with_body("signals = 3", "lookback_bars = 3"), "FILE: signals of class Idea is no method."),
        (
            with_body(SIGNALS, "lookback_bars = 3", "policy = {'stop_los': 1}"),
            "FILE: policy: unknown field 'stop_los'.",
        ),
        (
            with_body(SIGNALS, "lookback_bars = 3", "policy = {'stop_loss': 7}"),
            "FILE: policy: stop_loss must be a number from 0 to 0.999, not 7.",
        ),
        (
            with_body(SIGNALS, "lookback_bars = 3", "policy = {'direction': 'short'}"),
            "FILE: policy: direction short: a short was asked for",
        ),
        (
            with_body(SIGNALS, "lookback_bars = 3", "policy = [1, 2]"),
            "FILE: policy of class Idea must be a dictionary, not [1, 2].",
        ),
        (with_body(SIGNALS, "lookback_bars = 3", "w = param('a', 1, 2)"), "FILE: Idea: w must be a number, not 'a'."),
        (with_body(SIGNALS, "lookback_bars = 3", "w = param(9, 1, 2)"), "FILE: Idea: w must be from 1 to 2, not 9."),
        (
            with_body(SIGNALS, "lookback_bars = 3", "w = param(9, 'a', 'b')"),
            "FILE: the range of parameter w is not numbers: 'a', 'b'.",
        ),
    ],
)
def test_a_file_that_is_no_strategy_is_told_with_line_and_reason(
    tmp_path: Path, source: str | bytes, message: str
) -> None:
    assert told(tmp_path, source).startswith(message)


def test_a_file_that_vanished(tmp_path: Path) -> None:
    (tmp_path / "idea.py").symlink_to(tmp_path / "nothing")
    with pytest.raises(StrategyError, match="cannot be read: No such file"):
        load_strategy("idea", find_strategies([tmp_path], SHIPPED))


def test_two_files_with_the_same_class_do_not_meet(tmp_path: Path) -> None:
    first, second = loaded(tmp_path, GOOD, "one"), loaded(tmp_path, GOOD.replace("5, 2, 50", "7, 2, 50"), "two")
    assert (first.cls.title(), second.cls.title()) == ("one", "two")
    assert (first.make({}).values(), second.make({}).values()) == ({"window": 5}, {"window": 7})


def test_what_a_strategy_prints_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "print('loading')\n"
        + GOOD
        + "    def __init__(self, **values):\n        print('making')\n        super().__init__(**values)\n"
    )
    loaded(tmp_path, source).make({})
    assert capsys.readouterr() == ("", "loading\nmaking\n")


# --- parameters


class Tuned(Strategy):
    """Parameters of both kinds."""

    whole: int = param(5, 2, 50, "candles")
    share: float = param(0.5, 0.0, 1.0, "of it")


def test_parameters_have_defaults_and_keep_their_kind() -> None:
    assert Tuned().values() == {"whole": 5, "share": 0.5}
    made = Tuned(whole=7.0, share=1)
    assert made.values() == {"whole": 7, "share": 1.0}
    assert isinstance(made.whole, int) and isinstance(made.share, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"whole": 7.5}, "whole must be a whole number, not 7.5"),
        ({"whole": 1.0}, "whole must be from 2 to 50, not 1."),
        ({"whole": 51}, "whole must be from 2 to 50, not 51."),
        ({"share": 1.01}, "share must be from 0 to 1, not 1.01"),
        ({"share": float("nan")}, "share must be from 0 to 1, not nan"),
        ({"whole": float("nan")}, "whole must be a number, not nan"),
        ({"whole": float("inf")}, "whole must be a number, not inf"),
        ({"wohle": 3}, "has no parameter 'wohle'"),
    ],
)
def test_a_wrong_parameter_is_a_usage_error(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Tuned(**values)
    assert message in caught.value.what and caught.value.hint
    assert caught.value.exit_code == 2


def test_parameters_are_inherited() -> None:
    class More(Tuned):
        """One more."""

        extra: float = param(1.0, 0.0, 2.0)

    assert More().values() == {"whole": 5, "share": 0.5, "extra": 1.0}
    assert Tuned().values() == {"whole": 5, "share": 0.5}


def test_a_strategy_that_cannot_be_set_up_is_told_with_line_and_reason(tmp_path: Path) -> None:
    source = (
        GOOD + "    def __init__(self, **values):\n        super().__init__(**values)\n        raise OSError('boom')\n"
    )
    strategy = loaded(tmp_path, source)
    with pytest.raises(StrategyError, match=r"idea\.py, line 18: OSError: boom"):
        strategy.make({})
    with pytest.raises(UsageError, match="no parameter"):
        strategy.make({"wndow": 3})
