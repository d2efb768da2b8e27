"""A real process with a health server, asked by `atb health check`, by curl's like, and by clients that mean harm."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from atb.core.errors import UsageError
from atb.core.process import this_process
from atb.execution.executor import Event
from atb.live.health_server import MOST_CLIENTS, HealthServer, Page
from atb.live.port_owner import port_owner
from tests.database import ROOT
from tests.integration.shell import TIMEOUT_S, Shell
from tests.integration.small_engine import SECRET
from tests.integration.test_imports import HEAVY, imported


class Engine:
    """The small engine, and how to talk to it."""

    def __init__(self, home: Path, port: int = 0, mode: str = "paper") -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.small_engine", str(home), str(port), mode],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self._read().split()[1])

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self._read() == "done\n"

    def get(self, path: str = "/health", method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def health(self) -> Any:
        return json.loads(self.get()[1])

    def until(self, healthy: bool) -> Any:
        return eventually(lambda: self.health() if (self.get()[0] == 200) == healthy else None)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def eventually(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + TIMEOUT_S
    while not (seen := look()):
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.02)
    return seen


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "home")
    made.until(healthy=True)
    yield made
    made.end()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# --- atb health check


def test_a_healthy_engine_and_then_each_thing_that_can_be_wrong(engine: Engine, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    ran = shell("health", "check", ok=True)
    assert re.match(
        rf"✅ paper-account at http://127.0.0.1:{engine.port}/health: healthy, paper, session 5, "
        r"balance 10500.45, 0 open, last cycle \d+.\d s ago\n$",
        ran.out,
    )
    engine.say("database")
    ran = shell("health", "check")
    assert ran.code == 11 and ran.message == "1 engine is not healthy, of 1 that was asked."
    assert "❌" in ran.out and "The database has been out for" in ran.out and "connection refused" in ran.out
    assert SECRET not in ran.out + json.dumps(engine.health()) + engine.get("/metrics")[1]
    engine.say("back")
    assert shell("health", "check").code == 0
    engine.say("halt")
    ran = shell("health", "check", "--port", engine.port)
    assert ran.code == 11 and "Halted for" in ran.out and "(drawdown 25.3 %)" in ran.out


def test_an_engine_whose_loop_is_dead_is_not_healthy_although_its_server_answers(
    engine: Engine, tmp_path: Path
) -> None:
    engine.say("freeze")
    told = engine.until(healthy=False)
    assert told["status"] == "unhealthy" and "The last cycle ended" in told["reasons"][0]
    ran = Shell(tmp_path)("health", "check", "--json")
    assert ran.code == 11 and ran.json["healthy"] is False
    assert ran.json["engines"][0]["reasons"] and ran.json["engines"][0]["document"]["session_id"] == 5


def test_a_position_without_its_stop_is_seen(engine: Engine) -> None:
    engine.say("hold")
    told = engine.until(healthy=False)
    assert told["active_positions"] == 1 and "BTCUSDT has had no stop" in told["reasons"][0]
    assert told["unprotected_seconds"] > 0


def test_a_frozen_process_does_not_answer_in_time(engine: Engine, tmp_path: Path) -> None:
    engine.process.send_signal(signal.SIGSTOP)
    try:
        ran = Shell(tmp_path)("health", "check", "--timeout", "0.5")
    finally:
        engine.process.send_signal(signal.SIGCONT)
    assert ran.code == 11 and "It did not answer within 0.5 s." in ran.out and ran.message == "No engine answers."


def test_a_killed_engine_is_missed_although_another_one_is_well(engine: Engine, tmp_path: Path) -> None:
    shell, home = Shell(tmp_path), tmp_path / "home"
    with ExitStack() as stack:
        other = Engine(home, mode="real")
        stack.callback(other.end)
        other.until(healthy=True)
        ran = shell("health", "check", ok=True)
        assert ran.out.count("✅") == 2 and "real-account" in ran.out
        pid = other.process.pid
        other.end()
        ran = shell("health", "check")
        assert ran.code == 11 and ran.out.count("✅") == 1
        assert f"Process {pid} is gone, and did not end its session." in ran.out
        again = Engine(home, mode="real")  # it takes the place of the one that is gone
        stack.callback(again.end)
        again.until(healthy=True)
        assert shell("health", "check").code == 0


def test_cron_imports_next_to_nothing(engine: Engine, tmp_path: Path) -> None:
    modules = imported(Shell(tmp_path), "health", "check", "--port", engine.port)
    assert not modules & {*HEAVY, "numpy", "pyarrow", "psycopg", "rich", "asyncio"}


def test_no_engine_at_all(tmp_path: Path) -> None:
    port = free_port()
    ran = Shell(tmp_path)("health", "check", "--port", port)
    assert ran.code == 11 and "Nothing answers there: connection refused." in ran.out
    assert "atb live STRATEGY" in ran.err


def test_a_file_that_cannot_be_read_is_an_engine_that_is_not_well(engine: Engine, tmp_path: Path) -> None:
    for text in ("", "[]", '{"process": 1}', '{"process": {"pid": 99999999999999999999}, "account": "x"}', "\udcff"):
        (tmp_path / "home/engines/broken.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        ran = Shell(tmp_path)("health", "check")
        assert ran.code == 11 and "broken.json cannot be read" in ran.out and ran.out.count("✅") == 1


def said_of_itself(home: Path, **process: object) -> None:
    """Change what the only engine's file says of its process."""
    (file,) = (home / "engines").iterdir()
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"process": told["process"] | process}))


def test_a_pid_that_another_program_has_by_now(engine: Engine, tmp_path: Path) -> None:
    said_of_itself(tmp_path / "home", started="1")
    ran = Shell(tmp_path)("health", "check")
    assert ran.code == 11 and f"Process {engine.process.pid} is gone, and did not end its session." in ran.out


def test_one_of_before_the_host_was_started(engine: Engine, tmp_path: Path) -> None:
    said_of_itself(tmp_path / "home", place="another-boot/1/")
    assert "is gone, and did not end its session." in Shell(tmp_path)("health", "check").out


def test_one_of_another_container_is_asked_for_its_pid_says_nothing_here(engine: Engine, tmp_path: Path) -> None:
    boot = this_process().place.partition("/")[0]
    said_of_itself(tmp_path / "home", place=f"{boot}/1/")
    assert Shell(tmp_path)("health", "check", ok=True).out.startswith("✅ paper-account")
    engine.end()
    ran = Shell(tmp_path)("health", "check")
    assert ran.code == 11 and "Nothing answers there: connection refused." in ran.out


def test_another_engine_on_the_port_is_not_taken_for_the_one_that_is_meant(engine: Engine, tmp_path: Path) -> None:
    (file,) = (tmp_path / "home/engines").iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "account": "real-account", "session_id": 4}))
    ran = Shell(tmp_path)("health", "check")
    assert ran.code == 11
    assert "Another engine answers there: its account is paper-account, not real-account." in ran.out
    file.write_text(json.dumps({**json.loads(file.read_text()), "health_port": None}))
    assert "serves no health: its port was taken" in Shell(tmp_path)("health", "check").out


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n<html>hello</html>", b'HTTP/1.0 200 OK\r\n\r\n{"hello": 1}', b"SSH-2.0-OpenSSH_9\r\n", b"",
        b'HTTP/1.0 503 No\r\n\r\n{"status": "healthy"}', b'HTTP/1.0 200 OK\r\n\r\n{"status": "ok", "reasons": 5}',
        b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
    ],
)  # fmt: skip
def test_anything_else_on_the_port_is_not_healthy(answer: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(10_000)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        ran = Shell(tmp_path)(
            "health", "check", "--url", f"http://127.0.0.1:{server.getsockname()[1]}", "--timeout", "20"
        )
    assert ran.code == 11 and "❌" in ran.out


def test_a_server_that_never_ends_its_answer_does_not_hold_cron_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                while client.send(b"X"):
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        ran = Shell(tmp_path)("health", "check", "--port", server.getsockname()[1], "--timeout", "1")
        assert ran.code == 11 and "did not answer within 1 s" in ran.out
        thread.join(TIMEOUT_S)


def test_no_proxy_is_asked(engine: Engine, tmp_path: Path) -> None:
    shell = Shell(tmp_path, http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
    assert shell("health", "check").code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--port", "0"), "--port 0 is no port."), (("--port", "99999"), "--port 99999 is no port."),
        (("--url", "file:///etc/passwd"), "--url file:///etc/passwd is no address."),
        (("--port", "1", "--url", "http://x"), "--port and --url exclude each other."),
        (("--timeout", "0"), "--timeout 0 is no time to wait."), (("--timeout", "nan"), "--timeout nan is no time to wait."),
    ],
)  # fmt: skip
def test_options_that_mean_nothing(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ran = Shell(tmp_path)("health", "check", *args)
    assert ran.code == 2 and ran.message == said


# --- the server and its clients


def test_pages_and_methods(engine: Engine) -> None:
    status, body = engine.get()
    assert status == 200 and json.loads(body)["status"] == "healthy"
    assert engine.get("/health?verbose=1")[0] == 200
    assert engine.get("/health", "HEAD") == (200, "")
    assert engine.get("/metrics")[1].startswith("# HELP atb_engine_info")
    assert engine.get("/")[0] == 404 and "/health, /metrics" in engine.get("/nothing")[1]
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        assert engine.get("/health", method)[0] == 405
    assert engine.get("/nothing", "POST")[0] == 404


def raw(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def test_a_head_request_has_the_length_of_the_body_it_leaves_out(engine: Engine) -> None:
    answer = raw(engine.port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").decode()
    assert int(re.findall(r"Content-Length: (\d+)", answer)[0]) > 500 and answer.endswith("\r\n\r\n")
    assert "Allow: GET, HEAD" in raw(engine.port, b"POST /health HTTP/1.1\r\n\r\n").decode()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET /health\r\n\r\n", b"HTTP/1.1 400 "), (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\r\n\r\n", b"HTTP/1.1 400 "), (b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000, b"HTTP/1.1 431 "),
        (b"POST /health HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000, b"HTTP/1.1 405 "),
        (b"GET /\xff\xfe\x00 HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
    ],
)  # fmt: skip
def test_garbage_is_refused_and_the_next_one_served(engine: Engine, sent: bytes, answer: bytes) -> None:
    assert raw(engine.port, sent).startswith(answer)
    assert engine.get()[0] == 200


def test_who_sends_a_body_after_all_has_the_answer_nevertheless(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), TIMEOUT_S) as client:
        client.sendall(b"POST /health HTTP/1.1\r\nContent-Length: 5000\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 405"
        client.sendall(b"x" * 5000)
        time.sleep(0.2)
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):  # to its end, and no reset
            pass


def test_who_never_stops_sending_is_cut_off(engine: Engine) -> None:
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", engine.port), TIMEOUT_S) as client:
        while True:
            client.sendall(b"x" * 10_000)
    assert engine.get()[0] == 200


def test_clients_that_hang_keep_nobody_out_and_the_loop_goes_on(engine: Engine) -> None:
    with ExitStack() as stack:
        for i in range(5 * MOST_CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", engine.port), TIMEOUT_S))
            client.sendall((b"", b"GET /hea", b"GET /health HTTP/1.1\r\nX: ")[i % 3])
        before = engine.health()["cycles"]
        eventually(lambda: engine.health()["cycles"] > before + 3)
        assert engine.get()[0] == 200
        assert open_files(engine.process.pid) < MOST_CLIENTS + 40
    assert engine.get()[0] == 200


def test_a_thousand_at_once(engine: Engine) -> None:
    codes: list[int] = []

    def ask() -> None:
        codes.extend(engine.get()[0] for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 1000


# --- ports


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def pages() -> dict[str, Callable[[], Page]]:
    return {"/health": lambda: Page(200, "text/plain", "well")}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a port")
def test_a_taken_port_is_an_error_that_says_by_whom(engine: Engine) -> None:
    assert port_owner(engine.port) == f"process {engine.process.pid} (python)" or "python" in port_owner(engine.port)
    with pytest.raises(UsageError, match=rf"process {engine.process.pid} \(.*\) has that port") as caught:
        HealthServer(pages(), port=engine.port).start()
    assert caught.value.exit_code == 2 and "--health-port N" in caught.value.hint


def test_with_positions_it_is_a_warning_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = HealthServer(pages(), port=taken.getsockname()[1], tell=told.append)
        assert not server.start_or_warn(may_fail=True)
        assert told[0].severity == "warning" and "has that port" in told[0].message
        monkeypatch.setattr("atb.live.health_server.AGAIN_AFTER_S", 0.0)
        server.keep_up()
        assert len(told) == 2
    server.keep_up()
    assert server.port and told[-1] == ("info", "health_port", f"Health is served on port {server.port} now.")
    assert raw(server.port, b"GET /health HTTP/1.1\r\n\r\n").endswith(b"well")
    server.keep_up()  # nothing to do
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        raw(int(str(server.asked_port)), b"x")


def test_start_and_stop_again_and_again_leave_nothing_behind() -> None:
    server = HealthServer(pages())
    server.asked_port = free_port()
    before = threading.active_count()
    files = open_files(os.getpid())
    for _ in range(20):
        server.start()
        assert server.port == server.asked_port and b"well" in raw(server.asked_port, b"GET /health HTTP/1.0\r\n\r\n")
        server.stop()
    assert threading.active_count() == before and open_files(os.getpid()) <= files + 1


@pytest.mark.parametrize(
    "address", [("no.such.host.invalid", 0), ("203.0.113.1", 0), ("127.0.0.1", 70_000), ("x" * 300, 0)]
)
def test_an_address_that_is_none_of_ours(address: tuple[str, int]) -> None:
    with pytest.raises(UsageError):
        HealthServer(pages(), *address).start()


def test_a_page_that_fails_is_told_and_the_others_are_served() -> None:
    told: list[Event] = []

    def broken() -> Page:
        raise ZeroDivisionError("a bug")

    server = HealthServer(pages() | {"/broken": broken}, port=0, tell=told.append)
    server.start()
    assert server.port
    assert raw(server.port, b"GET /broken HTTP/1.1\r\n\r\n") == b""
    assert b"well" in raw(server.port, b"GET /health HTTP/1.1\r\n\r\n")
    server.stop()
    assert "ZeroDivisionError" in told[0].message


# --- the terminal


def test_the_last_state_stays_on_the_terminal_after_ctrl_c(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "70", "LINES": "20"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.small_engine", str(tmp_path), "0", "real", "moving"],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave, text=True,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline().startswith("ready")
    while b"healthy" not in shown or b"UNHEALTHY" in shown[-3000:]:
        shown += os.read(master, 65_536)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            more = os.read(master, 65_536)
        except OSError:
            break
        shown += more
        if not more:
            break
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    os.close(master)
    last = shown.decode()[-4000:]
    assert "R E A L   M O N E Y" in last and "10,500.45" in last and "a small engine" in last
    assert last.rstrip().endswith("\x1b[?25h") and "\x1b[?1049" not in shown.decode()  # the cursor is back
