"""The repository keeps its own rules: size, secrets, words, and where things may be imported."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "strategies").glob("*.py")])


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def functions(tree: ast.AST) -> list[int]:
    """Lengths of all functions, in lines without their docstrings."""
    lengths = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            assert node.end_lineno is not None
            lengths.append(node.end_lineno - body[0].lineno + 1)
    return lengths


def test_files_and_functions_stay_small() -> None:
    lengths: list[int] = []
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path} has grown over 400 lines"
        lengths += functions(ast.parse(text))
    assert statistics.median(lengths) <= 9
    assert statistics.quantiles(lengths, n=20)[-1] <= 50


def test_only_settings_reads_the_environment() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "settings.py":
            assert not re.search(r"os\.environ|os\.getenv", path.read_text()), path


def test_no_secrets_and_no_large_files() -> None:
    secret = re.compile(r"(?i)(api[_-]?key|secret|password)\s*[=:]\s*['\"][A-Za-z0-9+/]{16,}")
    for path in tracked():
        assert path.name != ".env"
        assert path.stat().st_size < 600_000, f"{path} is large"
        if path.suffix in {".py", ".md", ".toml", ".sh", ".example", ".yaml"}:
            assert not secret.search(path.read_text()), path


def test_lock_files_name_no_address_and_have_hashes() -> None:
    for path in ROOT.glob("requirements*.lock"):
        text = path.read_text()
        assert "://" not in text and "--index" not in text and "--find-links" not in text
        pins = [line for line in text.splitlines() if re.match(r"[a-z0-9].*==", line)]
        assert pins and all(line.endswith("\\") for line in pins)


def test_no_mock_of_our_own_code() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            assert "unittest.mock" not in path.read_text(), path


def test_public_functions_have_docstrings() -> None:
    missing = []
    for path in (ROOT / "src" / "atb" / "engine").glob("*.py"):
        nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        missing += [f"{path.name}: {n.name}" for n in nodes if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not missing
