"""The virtual environment and the wheel in it, made again only when something changed.

Two of them exist side by side: an optimized one for `make run` and a quickly built one for the tests.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

from preflight import registry
from progress import Problem, Step

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".byzerllm"
SOURCES = ("Cargo.toml", "Cargo.lock", "crates", "python/Cargo.toml", "python/pyproject.toml", "python/src", "python/byzerllm")
SUFFIXES = {".rs", ".toml", ".lock", ".py", ".pyi", ".typed", ".sql"}
NETWORK_FIX = "Check the network, proxy and registry settings of cargo and run again: what was fetched is kept."


class Environment:
    """A virtual environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.python = self.bin / "python"
        self._stamps = path / "byzerllm-stamps.json"

    def make(self) -> bool:
        """Makes the environment when it is missing or of another Python; returns whether it did."""
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if self.stamp("python") == version and self.python.exists():
            return False
        command = [sys.executable, "-m", "venv", "--clear", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise Problem(f"no virtual environment could be made: {reason}", "Run `sudo apt-get install python3-venv`.")
        self.set_stamp("python", version)
        return True

    def require(self, requirements: Path, step: Step) -> None:
        """Installs a file of pinned packages unless exactly this was installed before."""
        key, digest = f"requirements:{requirements.name}", hashlib.sha256(requirements.read_bytes()).hexdigest()
        if self.stamp(key) == digest:
            return
        step.update("installing packages")
        first = re.split(r"[=<>\[ ]", first_requirement(requirements))[0]
        registry(self.python, first)
        self.pip(["install", "--quiet", "-r", str(requirements)])
        self.set_stamp(key, digest)

    def pip(self, arguments: Sequence[str]) -> None:
        """Runs pip."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = ((done.stderr or done.stdout).strip().splitlines() or ["no reason given"])[-1]
            raise Problem(f"pip failed: {reason}", "Check the network, proxy and pip settings and run again.")

    def stamp(self, key: str) -> str:
        """What was noted about a finished piece of work."""
        return self._read().get(key, "")

    def set_stamp(self, key: str, value: str) -> None:
        """Notes that a piece of work is finished."""
        stamps = {**self._read(), key: value}
        partial = self._stamps.with_suffix(".partial")
        partial.write_text(json.dumps(stamps))
        partial.replace(self._stamps)

    def _read(self) -> Dict[str, str]:
        try:
            return dict(json.loads(self._stamps.read_text()))
        except (OSError, ValueError):
            return {}


def install(environment: Environment, profile: str) -> bool:
    """Builds the wheel with a cargo profile and installs it; returns False when nothing had changed."""
    digest = sources_digest(profile)
    if environment.stamp("wheel") == digest:
        return False
    WORK.mkdir(exist_ok=True)
    with Step("build tools") as step:
        environment.require(ROOT / "scripts" / "build-requirements.txt", step)
    with Step("Rust packages") as step:
        run_logged(["cargo", "fetch", "--locked"], "fetch", step, NETWORK_FIX, lambda line: line.strip()[:60])
    wheels = WORK / f"wheel-{profile}"
    for old in wheels.glob("*.whl"):
        old.unlink()
    total = crates_to_build()
    with Step(f"wheel ({profile})") as step:
        started = 0

        def describe(line: str) -> Optional[str]:
            nonlocal started
            found = re.match(r"\s*Compiling (\S+)", line)
            if not found:
                return None
            started += 1
            return f"crate {started} of about {total}, {found[1]}"

        command = [str(environment.bin / "maturin"), "build", "--locked", "--profile", profile]
        command += ["--manifest-path", str(ROOT / "python" / "Cargo.toml"), "--out", str(wheels)]
        command += ["--interpreter", str(environment.python)]
        run_logged(command, f"wheel-{profile}", step, "The lines above name the failing crate.", describe)
        step.update("installing")
        built = sorted(wheels.glob("*.whl"))
        if len(built) != 1:
            raise Problem(f"the build left {len(built)} wheels in {wheels}", "Remove that directory and run again.")
        environment.pip(["install", "--quiet", "--force-reinstall", "--no-deps", str(built[0])])
        # What it depends on, where that is missing.
        environment.pip(["install", "--quiet", str(built[0])])
    environment.set_stamp("wheel", digest)
    return True


def run_logged(
    command: Sequence[str], name: str, step: Step, fix: str, describe: Callable[[str], Optional[str]]
) -> None:
    """Runs a program, its output going to a log; `describe` turns lines into progress. A failure shows the end."""
    log = WORK / f"{name}.log"
    environment = {**os.environ, "CARGO_TERM_COLOR": "never", "CARGO_TERM_PROGRESS_WHEN": "never"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with log.open("w") as sink, subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as program:
        for line in program.stdout:
            sink.write(line)
            progress = describe(line)
            if progress:
                step.update(progress)
    if program.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-25:]
        print("\n".join(f"    {line}" for line in tail), file=sys.stderr)
        raise Problem(f"`{Path(command[0]).name} {command[1]}` failed (log: {log})", fix)


def crates_to_build() -> int:
    """About how many crates the wheel consists of, for the progress."""
    command = ["cargo", "tree", "--locked", "--offline", "-p", "byzerllm-python", "-e", "normal,build", "--prefix", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return len({line.split(" (")[0] for line in done.stdout.splitlines() if line.strip()}) or 200


def sources_digest(profile: str) -> str:
    """A sum over everything that the wheel is made of."""
    digest = hashlib.sha256(profile.encode())
    digest.update(subprocess.run(["rustc", "-vV"], capture_output=True).stdout)
    for source in SOURCES:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
        for file in files:
            relative = file.relative_to(ROOT)
            if file.suffix in SUFFIXES and file.is_file() and "tests" not in relative.parts:
                digest.update(f"{relative}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def first_requirement(requirements: Path) -> str:
    """The first package that a requirements file names."""
    for line in requirements.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line and not line.startswith("-"):
            return line
    return "pip"
