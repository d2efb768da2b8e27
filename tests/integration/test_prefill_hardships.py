"""`atb data prefill-cache` on a full disk, and two of them at once: the store ends as if nothing had happened."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from atb.core.timeframe import SystemClock
from atb.data.layout import SeriesKey
from atb.data.store import CandleStore
from atb.engine.candles import Candles
from tests.conftest import same_candles
from tests.integration.shell import Shell
from tests.venue.exchange.__main__ import history
from tests.venue.loopback import Exchange, Fault, Loopback

pytest.importorskip("ccxt")
KEY = SeriesKey("binance", "spot", "BTCUSDT", "1m")
PREFILL = ("data", "prefill-cache", "--symbols", "BTCUSDT", "--timeframes", "1m", "--years", 0.2)
PAGES, PER_PAGE = 60, 1000
# What has not been closed for a day may end otherwise: minutes go by between two runs.
SETTLED = (PAGES - 3) * PER_PAGE


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Of today: commands go by the clock."""
    now = SystemClock().now_ms()
    made = Exchange(now)
    made.list("BTCUSDT", "BTC", "USDT", {"1m": history(3, PAGES * PER_PAGE, "1m", now, 40_000.0)}, price="40000")
    made.clock.run(1.0)
    with Loopback(made, seed=1) as server:
        yield server


def settled(shell: Shell) -> Candles:
    candles = CandleStore(shell.home / "candles").read(KEY)
    assert candles is not None and len(candles) >= SETTLED
    return candles.window(0, SETTLED)


def undisturbed(folder: Path, server: Loopback) -> Candles:
    shell = Shell(folder / "undisturbed", ATB_BINANCE_API_URL=server.url)
    shell(*PREFILL, ok=True)
    return settled(shell)


class Disk:
    """A file system of its own, of so many kB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, kilobytes: int, *more: str) -> bool:
        options = ",".join([f"size={kilobytes}k", "mode=755", *more])
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "home"
    folder.mkdir()
    disk = Disk(folder)
    if not disk.mount(1200):
        pytest.skip("NO SMALL DISK: a tmpfs cannot be mounted here; a full disk was NOT tested")
    yield disk
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_and_what_is_stored_is_whole_and_with_room_it_goes_on(
    tmp_path: Path, disk: Disk, server: Loopback
) -> None:
    truth = undisturbed(tmp_path, server)
    shell = Shell(tmp_path, ATB_BINANCE_API_URL=server.url)
    ran = shell(*PREFILL)
    assert ran.code == 3 and "No space left on device" in ran.message, ran.err
    assert str(disk.folder / "candles" / KEY.path) in ran.message and "Free some space" in ran.err
    assert "all good" in shell("data", "cache-manager", "verify", ok=True).err
    kept = sum(part.size for part in CandleStore(disk.folder / "candles").parts(KEY))
    assert kept > 100_000, "what was stored before stays"
    assert [p.name for p in disk.folder.rglob(".part-*")] == [], "nothing half-written stays"
    assert disk.mount(20_000, "remount")
    asked = server.count("/klines")
    shell(*PREFILL, ok=True)
    assert server.count("/klines") - asked < PAGES, "what was stored is not fetched again"
    assert same_candles(settled(shell), truth)


@pytest.mark.slow
def test_two_at_once_of_the_same_series_end_as_one(tmp_path: Path, server: Loopback) -> None:
    truth = undisturbed(tmp_path, server)
    alone = server.count("/klines")
    server.add(Fault("hang", "/klines", seconds=0.05))
    shell = Shell(tmp_path, ATB_BINANCE_API_URL=server.url)
    both = [shell.start(*PREFILL, "--workers", workers) for workers in (2, 3)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in err, err
    asked = server.count("/klines") - alone
    assert same_candles(settled(shell), truth)
    # A page that both have under way is asked for twice; what one has stored, the other leaves out.
    assert asked <= 2 * alone
    parts = CandleStore(shell.home / "candles").parts(KEY)
    assert all(one.end_ms <= other.start_ms for one, other in pairwise(parts)), "nothing is stored twice"
    shell(*PREFILL, ok=True)
    assert server.count("/klines") - alone - asked <= 5, "all of it is there"
