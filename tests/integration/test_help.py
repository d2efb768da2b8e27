"""Help texts: examples, defaults, widths."""

from __future__ import annotations

import re
import subprocess

import pytest

import atb
from tests.integration.shell import ATB, ESCAPE, TIMEOUT_S, Ran, Shell

COMMANDS = [
    "", "backtest", "data", "data import", "data list", "data gaps", "data rules", "strategies", "strategies list",
    "strategies show", "strategies check", "strategies new",
    "models", "models list", "models show", "models verify", "models train", "health", "health check",
    "live status", "live stop", "live halt", "live resume", "live set-stop",
]  # fmt: skip


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    shell = Shell(tmp_path_factory.mktemp("help"))
    return dict(zip(COMMANDS, shell.many((*command.split(), "--help") for command in COMMANDS), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_text_has_examples_and_fits_80_columns(helps: dict[str, Ran], command: str) -> None:
    ran = helps[command]
    assert ran.code == 0 and ran.err == ""
    assert re.search(r"^  Examples?:\n    atb ", ran.out, re.MULTILINE)
    assert all(len(line) <= 80 for line in ran.out.splitlines()), max(ran.out.splitlines(), key=len)
    assert not ESCAPE.search(ran.out)
    for example in re.findall(r"^    (atb .*)", ran.out, re.MULTILINE):
        assert example.startswith(f"atb {command}".rstrip()), example


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_says_what_it_is_and_what_happens_without_it(helps: dict[str, Ran], command: str) -> None:
    for entry in re.split(r"\n  (?=-)", helps[command].out)[1:]:
        text = " ".join(entry.split("\n\n")[0].split())
        name, _, said = text.partition(" ")
        takes_value = bool(re.match(r"(?:-\w, )?--[\w-]+ [A-Z:=]+ ", text))
        optional = "[required]" not in text and not any(
            w in name for w in ("--days", "--years", "--start", "--end", "--data")
        )
        assert len(said) > 10, text
        if takes_value and optional and name not in ("-p,", "--policy", "--export"):
            assert "[default:" in text, text


@pytest.mark.parametrize("command", ["", "data", "strategies", "models"])
def test_no_command_s_description_is_cut_off(helps: dict[str, Ran], command: str) -> None:
    listed = helps[command].out.split("\nCommands:\n")[1]
    assert len(listed.splitlines()) >= 4 and "..." not in listed


def test_the_short_spelling_of_help(shell: Shell, helps: dict[str, Ran]) -> None:
    assert shell("backtest", "-h", ok=True).out == helps["backtest"].out


@pytest.mark.parametrize("command", ["", "backtest", "data", "strategies", "models", "health"])
def test_nothing_asked_for_is_answered_with_help(shell: Shell, command: str) -> None:
    ran = shell(*command.split())
    assert ran.code == 2 and ran.out == "" and "Examples:" in ran.err


def test_version(shell: Shell) -> None:
    assert shell("--version", ok=True) == Ran(0, f"atb {atb.__version__}\n", "")


def test_completion_is_printed(shell: Shell) -> None:
    """For the shell that runs it: here a real bash, whatever has started the tests."""
    line = ["bash", "--norc", "-c", f"{ATB} --show-completion; exit $?"]
    answer = subprocess.run(line, env=shell.env, text=True, capture_output=True, timeout=TIMEOUT_S)
    assert (answer.returncode, answer.stderr) == (0, "") and "_ATB_COMPLETE" in answer.stdout
    done = shell(env={"_ATB_COMPLETE": "complete_bash", "COMP_WORDS": "atb back", "COMP_CWORD": "1"})
    assert done.out.split() == ["backtest"]
