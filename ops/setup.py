"""Make .venv and install the pinned dependencies and atb itself: `python3 ops/setup.py [dev|bench]`.

Needs nothing but Python 3.11 or newer. Uses uv where it is found or can be installed, otherwise pip. A .venv that is up
to date is left alone, so that this can run before every command.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCKS = {"run": "requirements.lock", "dev": "requirements-dev.lock", "bench": "requirements-bench.lock"}


def main() -> None:
    """Set up; what can be foreseen ends with a sentence."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    try:
        set_up()
    except KeyboardInterrupt:
        say("Interrupted. Run it again to go on.")
        sys.exit(130)
    except OSError as error:  # a clone that may not be written, a full disk
        remedy = (
            " Make the clone writable, or clone to where you may write." if isinstance(error, PermissionError) else ""
        )
        sys.exit(f"{error.filename or ROOT}: {error.strerror or error}.{remedy}")


def set_up() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    stamp = VENV / f".installed-{kind}"
    wanted = fingerprint(kind)
    if (stamp.is_file() and stamp.read_text() == wanted) or (kind == "run" and up_to_date("dev")):
        return
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before anything has checked
        sys.exit(f"atb needs Python 3.11 or newer; this is {sys.version.split()[0]}. Set PYTHON to a newer one.")
    say(f"Setting up .venv ({kind}); this is done once.")
    if not (BIN / "python").exists():
        make_venv()
    install(kind)
    stamp.write_text(wanted)


def up_to_date(kind: str) -> bool:
    stamp = VENV / f".installed-{kind}"
    return stamp.is_file() and stamp.read_text() == fingerprint(kind)


def fingerprint(kind: str) -> str:
    """Of everything an installation depends on."""
    digest = hashlib.sha256(sys.version.encode())
    for name in (LOCKS[kind], "pyproject.toml", "ops/setup.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def make_venv() -> None:
    """A virtual environment with pip in it."""
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except subprocess.CalledProcessError as error:  # of the last step, which installs pip
        uv = shutil.which("uv")
        if uv is None:
            sys.exit(f"Python cannot make a virtual environment here. {why_no_pip(error)}")
        run([uv, "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, str(VENV)])
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)  # half of one would be taken for a whole one
        raise


def why_no_pip(error: subprocess.CalledProcessError) -> str:
    if importlib.util.find_spec("ensurepip") is None:  # Debian packs it apart
        return "On Debian and Ubuntu: apt-get install python3-venv. Or install uv and run this again."
    said = (error.output or b"").decode(errors="replace").strip().splitlines() or [str(error)]
    return f"Installing pip into it failed: {said[-1]}"


def install(kind: str) -> None:
    lock = str(ROOT / LOCKS[kind])
    uv = find_uv()
    if uv is not None:
        if not os.access(Path("~/.cache").expanduser().parent, os.W_OK):  # a service user without a home of its own
            os.environ.setdefault("UV_CACHE_DIR", str(VENV / ".uv-cache"))
        command = [uv, "pip", "install", "--quiet", "--python", str(BIN / "python")]
        if succeeds([*command, "--require-hashes", "-r", lock]):
            run([*command, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
            return
        say("uv failed; going on with pip.")
    say("pip downloads and installs everything; this takes a minute or two.")
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", lock])
    run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])


def find_uv() -> str | None:
    """uv from PATH, from .venv, or installed into .venv now, at the version and with the hashes of the lock file."""
    if os.environ.get("ATB_SETUP") == "pip":
        return None
    for candidate in (shutil.which("uv"), str(BIN / "uv")):
        if candidate and Path(candidate).exists():
            return candidate
    pinned = VENV / "uv.lock.txt"
    pinned.write_text(pin_of("uv"))
    command = [
        str(BIN / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ]
    if succeeds([*command, "-r", str(pinned)], stderr=subprocess.DEVNULL):
        return str(BIN / "uv")
    say("uv cannot be installed here; going on with pip.")
    return None


def pin_of(package: str) -> str:
    """A package's lines in the lock file."""
    lines = (ROOT / LOCKS["run"]).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{package}=="))
    taken = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith("    --hash"):
            break
        taken.append(line)
    return "\n".join(taken) + "\n"


def run(command: list[str]) -> None:
    if not succeeds(command):
        sys.exit(f"Failed: {' '.join(command)}")


def succeeds(command: list[str], stderr: int | None = None) -> bool:
    """Run to the end. In a session of its own, so that Ctrl-C is ours to tell, in one line."""
    with subprocess.Popen(command, start_new_session=True, stderr=stderr) as process:
        try:
            return process.wait() == 0
        except BaseException:
            stop(process)
            raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started."""
    if os.name == "nt":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGTERM)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
