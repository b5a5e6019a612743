"""`make test`: every test of every language, from a clean checkout."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

import models
import preflight
import wheel
from progress import Problem, Step

ROOT = wheel.ROOT
RUST_FIX = "The failing test stands above; run it alone with `cargo test -p CRATE NAME`."
PYTHON_FIX = "The failing test stands above; run it alone with `make test ONLY=python ARGS='-k NAME'`."
DOCS_FIX = "The failing block stands above with its file and line."


def main() -> int:
    """Runs the asked parts in order and stops at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["rust", "python", "docs"], action="append")
    parser.add_argument("rest", nargs="*", help="arguments for the test program (with --only)")
    arguments = parser.parse_args()
    parts = arguments.only or ["rust", "python", "docs"]
    times: List[Tuple[str, float]] = []
    try:
        with Step("checks"):
            preflight.rust()
            preflight.python()
        environment = wheel.Environment(wheel.WORK / "venv-test")
        with Step("virtual environment"):
            wheel.WORK.mkdir(exist_ok=True)
            environment.make()
        with Step(f"model {models.SMOLLM2.title}") as step:
            models.fetch(models.SMOLLM2, str(environment.python), step)
        variables = {**os.environ, "BYZERLLM_TEST_MODELS": str(models.cache_directory())}
        variables["PATH"] = f"{environment.bin}{os.pathsep}{variables.get('PATH', '')}"
        for part in parts:
            began = time.monotonic()
            {"rust": rust, "python": python, "docs": docs}[part](environment, variables, arguments.rest)
            times.append((part, time.monotonic() - began))
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        return 130
    print("\nAll tests passed: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times))
    return 0


def rust(_environment: wheel.Environment, variables: Dict[str, str], rest: List[str]) -> None:
    """The workspace without the Python extension, which cargo cannot link into a test.

    With traces, which the wheel does not have: so both are built, and each only once."""
    command = ["cargo", "test", "--locked", "--workspace", "--exclude", "byzerllm-python", "--no-fail-fast"]
    command += ["--features", "byzerllm-cli/otel", *rest]
    check(command, variables, "a Rust test failed", RUST_FIX)


def python(environment: wheel.Environment, variables: Dict[str, str], rest: List[str]) -> None:
    """The package, tested as installed."""
    wheel.install(environment, "dev")
    tests = ROOT / "python" / "tests"
    with Step("test packages") as step:
        environment.require(tests / "requirements.txt", step)
        environment.require(tests / "vendor-requirements.txt", step)
    check([str(environment.python), "-m", "pytest", *(rest or [str(tests)])], variables, "a Python test failed", PYTHON_FIX)


def docs(_environment: wheel.Environment, variables: Dict[str, str], _rest: List[str]) -> None:
    """The documents' structure and every code block of the READMEs."""
    script = str(Path(__file__).with_name("check_docs.py"))
    check([sys.executable, script, "all"], variables, "the documents are wrong", DOCS_FIX)


def check(command: List[str], variables: Dict[str, str], failure: str, fix: str) -> None:
    """Runs a program with its output shown."""
    print(f"$ {' '.join(command)}", flush=True)
    if subprocess.run(command, cwd=ROOT, env=variables).returncode != 0:
        raise Problem(failure, fix)


if __name__ == "__main__":
    sys.exit(main())
