"""Runs the fuzz targets, one after another, from the kept corpora.

    python3 scripts/fuzz.py                         every target for ten minutes
    python3 scripts/fuzz.py --seconds 60 gguf       one of them for a minute
    python3 scripts/fuzz.py --minimize              keeps only what the corpora need

Needs a nightly compiler and cargo-fuzz (`cargo install cargo-fuzz`). What a run finds stays in fuzz/work, which git
ignores, until `--minimize` brings into fuzz/corpus what adds coverage. A crash ends the run with the file that shows it.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
# Seconds that one input may take, and megabytes of the process and of one allocation.
LIMITS = ["-timeout=25", "-rss_limit_mb=2048", "-malloc_limit_mb=512"]
# Inputs longer than this reach nothing that shorter ones do not.
LENGTHS = {"gguf": 12288, "tokenizer": 6144, "template": 4096}
LENGTH = 2048
# As cargo-fuzz sets it: C code that is linked twice is no fault.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_odr_violation=0"}


def main() -> int:
    """Builds and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="names of targets; all without one")
    parser.add_argument("--seconds", type=int, default=600, help="how long each target runs")
    parser.add_argument("--minimize", action="store_true", help="bring what adds coverage into the corpora, run nothing")
    parser.add_argument("--toolchain", default="nightly")
    arguments = parser.parse_args()
    known = targets()
    unknown = [name for name in arguments.targets if name not in known]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(known)}")
    failed = []
    for name in arguments.targets or known:
        build(name, arguments.toolchain)
        if arguments.minimize:
            minimize(name)
        elif not fuzz(name, arguments.seconds):
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; the inputs lie in fuzz/artifacts", file=sys.stderr)
    return 1 if failed else 0


def targets() -> List[str]:
    """The names in fuzz/Cargo.toml."""
    return re.findall(r'^path = "fuzz_targets/(\w+)\.rs"$', (FUZZ / "Cargo.toml").read_text(encoding="utf-8"), re.M)


def build(name: str, toolchain: str) -> None:
    """The instrumented program."""
    subprocess.run(["cargo", f"+{toolchain}", "fuzz", "build", name], cwd=FUZZ, check=True)


def program(name: str) -> List[str]:
    """The program and the options of every run."""
    found = sorted(FUZZ.glob(f"target/*/release/{name}"))
    if not found:
        raise SystemExit(f"{name} was not built")
    command = [str(found[0]), *LIMITS, f"-max_len={LENGTHS.get(name, LENGTH)}"]
    dictionary = FUZZ / "dictionaries" / f"{name}.dict"
    return command + ([f"-dict={dictionary}"] if dictionary.exists() else [])


def fuzz(name: str, seconds: int) -> bool:
    """One run; says how many inputs it tried and what it covered."""
    work, artifacts = FUZZ / "work" / name, FUZZ / "artifacts" / name
    for folder in (work, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    command = [*program(name), f"-max_total_time={seconds}", "-print_final_stats=1", f"-artifact_prefix={artifacts}/"]
    began = time.monotonic()
    run = subprocess.run([*command, str(work), str(FUZZ / "corpus" / name)], stderr=subprocess.PIPE, text=True, errors="replace", env=ENVIRONMENT)
    took = time.monotonic() - began
    numbers = summary(run.stderr)
    shown = ", ".join(f"{value} {key}" for key, value in numbers.items())
    print(f"{name}: {took:.0f} s, {shown}: {'clean' if run.returncode == 0 else 'FAILED'}", flush=True)
    if run.returncode != 0:
        print(run.stderr[-6000:], file=sys.stderr)
    return run.returncode == 0


def summary(output: str) -> Dict[str, int]:
    """Numbers of libFuzzer's log."""
    numbers = {}
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    if executed:
        numbers["executions"] = int(executed[1])
    covered = re.findall(r"cov: (\d+) ft: (\d+)", output)
    if covered:
        numbers["edges"], numbers["features"] = map(int, covered[-1])
    peak = re.search(r"stat::peak_rss_mb:\s*(\d+)", output)
    if peak:
        numbers["MB at most"] = int(peak[1])
    return numbers


def minimize(name: str) -> None:
    """The seeds and named regressions stay; of the rest, what adds coverage."""
    corpus, work = FUZZ / "corpus" / name, FUZZ / "work" / name
    merged = FUZZ / "work" / f"{name}.minimal"
    for folder in (work, merged):
        folder.mkdir(parents=True, exist_ok=True)
    for old in merged.iterdir():
        old.unlink()
    named = [file for file in corpus.iterdir() if "-" in file.name]
    for file in named:
        (merged / file.name).write_bytes(file.read_bytes())
    command = [*program(name), "-set_cover_merge=1", "-use_counters=0", str(merged), str(corpus), str(work)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    kept = {hashlib.sha1(file.read_bytes()).hexdigest(): file for file in merged.iterdir() if "-" not in file.name}
    for file in corpus.iterdir():
        if "-" not in file.name:
            file.unlink()
    for digest, file in kept.items():
        (corpus / digest[:16]).write_bytes(file.read_bytes())
    size = sum(file.stat().st_size for file in corpus.iterdir())
    print(f"{name}: {len(named)} named and {len(kept)} found files, {size} bytes")


if __name__ == "__main__":
    sys.exit(main())
