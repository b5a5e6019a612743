"""What must be true before anything is built, each failure with its fix."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Tuple

from progress import Problem

RUST = (1, 94)
PYTHON = (3, 10)
BUILD_BYTES = 4 << 30
INSTALL_RUST = "Install Rust 1.94 or newer with rustup (`rustup update stable`) and open a new shell."


def rust() -> str:
    """The compiler's version."""
    if not shutil.which("cargo") or not shutil.which("rustc"):
        raise Problem("no Rust compiler was found", INSTALL_RUST)
    try:
        text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Problem(f"rustc does not run: {error}", INSTALL_RUST) from None
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if not found or (int(found[1]), int(found[2])) < RUST:
        raise Problem(f"{text} is too old, {RUST[0]}.{RUST[1]} is needed", INSTALL_RUST)
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        raise Problem("no C compiler was found (SQLite is compiled from C)", "Run `sudo apt-get install build-essential`.")
    return found[0]


def python() -> str:
    """This interpreter's version; it must be able to make virtual environments."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        raise Problem(f"Python {version} is too old, 3.10 is needed", "Run `make PYTHON=python3.11 …` with a newer one.")
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Problem("this Python cannot make virtual environments", f"Run `sudo apt-get install {package}`.")
    return version


def disk(directory: Path, needed: int, what: str) -> int:
    """Free bytes where something is about to be written."""
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise Problem(
            f"{directory} has {free / (1 << 30):.1f} GiB free, {what} needs {needed / (1 << 30):.1f} GiB",
            "Free some space, or move the work: CARGO_TARGET_DIR for the build, BYZERLLM_CACHE for models.",
        )
    return free


def port(wanted: int, exact: bool) -> Tuple[int, bool]:
    """A free port from `wanted` on, and whether it is another one. `exact` allows no other."""
    for candidate in range(wanted, min(wanted + (1 if exact else 100), 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", candidate))
            except PermissionError:
                raise Problem(f"port {candidate} is not allowed", "Choose one above 1023: make run PORT=8000") from None
            except OSError:
                continue
            return candidate, candidate != wanted
    if exact:
        raise Problem(f"port {wanted} is in use", "Stop the program that holds it or leave PORT out.")
    raise Problem(f"no port from {wanted} to {wanted + 99} is free", "Choose one: make run PORT=9000")


def registry(python_binary: Path, package: str) -> None:
    """Whether the package registry that pip is set to answers for a package that is needed."""
    command = [str(python_binary), "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    done = subprocess.run([*command, "index", "versions", package], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Problem(
            f"the package registry cannot be reached: {reason}",
            "Check the network, the HTTPS_PROXY variable and `pip config list`; then run again.",
        )
