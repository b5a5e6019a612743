"""This engine beside llama.cpp on the same machine: speed, serving, memory and quality.

The engines take turns, so that a machine that slows down slows all of them; every number is the median of the turns.
Writes one JSON and one Markdown file and prints the latter. See README.md in this folder.
"""

import argparse
import math
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import corpus
import engines
import llama_cpp
import load
import models
import quality
from common import (
    ROOT,
    Problem,
    Step,
    commit,
    machine,
    markdown_table,
    median,
    number,
    spread,
    write_results,
)

STREAMS = (16, 32)
# Measure, words for people, whether more is better, the ratio that is aimed at.
MEASURES: Tuple[Tuple[str, str, bool, float], ...] = (
    ("prefill", "prefill, 512 tokens (tokens/s)", True, 4.0),
    ("decode_1", "decode, 1 stream (tokens/s)", True, 2.0),
    ("decode_16", "decode, 16 streams (tokens/s)", True, 8.0),
    ("decode_32", "decode, 32 streams (tokens/s)", True, 8.0),
    ("http_tokens", "HTTP, 16 clients (new tokens/s)", True, 6.0),
    ("http_first_p95", "the same: p95 time to first token (ms)", False, 4.0),
    ("second_turn", "second turn, 1,500 tokens cached: first token (ms)", False, 2.0),
    ("start", "start of the process to first token (ms)", False, 2.0),
    ("peak_memory", "peak memory, 16 clients (MiB)", False, 1.0),
)

Values = Dict[str, List[float]]


def main() -> int:
    """Measures what is asked for."""
    arguments = parse_arguments()
    try:
        result = measure(arguments)
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        return 130
    write_results(result, markdown(result), arguments.out)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT
    parser.add_argument("--binary", type=Path, default=default / "target" / "release" / "byzerllm")
    parser.add_argument("--model", choices=sorted(models.MODELS), action="append", help="may be repeated; all by default")
    parser.add_argument("--compute", default="standard,fast", help="modes of this engine, with commas")
    parser.add_argument("--kinds", default=",".join(quality.KINDS), help="quantizations of llama.cpp; `file` is the file itself")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each engine")
    parser.add_argument("--only", default="raw,http,chat,quality", help="parts: raw, http, chat, quality")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--isa", choices=["avx2", "scalar"], help="force a lower path of this engine")
    parser.add_argument("--quick", action="store_true", help="one turn, few requests, short texts: does it run?")
    parser.add_argument("--out", type=Path, help="where to write, without suffix")
    arguments = parser.parse_args()
    arguments.parts = set(arguments.only.split(","))
    if unknown := arguments.parts - {"raw", "http", "chat", "quality"}:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    arguments.repeat = 1 if arguments.quick else max(1, arguments.repeat)
    return arguments


def measure(arguments: argparse.Namespace) -> dict:
    """Everything, for every model."""
    if not arguments.binary.is_file():
        raise Problem(
            f"{arguments.binary} is missing", "Build it: cargo build --release -p byzerllm-cli, or pass --binary."
        )
    with Step("llama.cpp") as step:
        folder = llama_cpp.programs(step)
    with Step("texts") as step:
        texts = corpus.fetch(step)
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "program_sha256": models.sha256(arguments.binary),
        "machine": machine(),
        "threads": arguments.threads,
        "repeat": arguments.repeat,
        "quick": arguments.quick,
        "peers": {"llama.cpp": llama_cpp.facts()},
        "corpus": {text.name: {"package": text.spec, "sha256": text.sha256} for text in corpus.TEXTS},
        "models": [],
    }
    for name in arguments.model or sorted(models.MODELS, reverse=True):
        result["models"].append(measure_model(arguments, models.MODELS[name], folder, texts))
    result["machine"]["load_average_at_end"] = os.getloadavg()
    return result


def measure_model(
    arguments: argparse.Namespace, model: models.Model, folder: Path, texts: Dict[str, Path]
) -> dict:
    """One model in every engine."""
    with Step(f"model {model.title}") as step:
        path = models.fetch(model, sys.executable, step)
        kinds = arguments.kinds.split(",")
        peers = [engines.LlamaCpp(folder, llama_cpp.quantize(folder, path, kind, step), kind) for kind in kinds]
    environment = {"BYZERLLM_ISA": arguments.isa} if arguments.isa else {}
    own = [engines.Byzerllm(arguments.binary, path, mode, environment) for mode in arguments.compute.split(",")]
    found = {"name": model.name, "title": model.title, "sha256": model.sha256, "engines": []}
    if "quality" in arguments.parts:
        scored = {name: corpus.beginning(text) for name, text in texts.items()} if arguments.quick else texts
        found["quality"] = quality.measure(own[0] if own else None, peers, scored, arguments.threads)
    else:
        found["quality"] = quality.known(own[0] if own else None, peers, texts)
    comparable = quality.comparable_kinds(found["quality"], kinds)
    found["comparable"] = comparable
    values: Dict[str, Values] = {engine.name: {} for engine in [*own, *peers]}
    threads: Dict[str, Dict[str, int]] = {engine.name: {} for engine in [*own, *peers]}
    if "raw" in arguments.parts:
        raw(arguments, [*own, *peers], values, threads)
    served = best_for_serving(values, comparable, peers)
    found["served"] = served.name
    source = texts["english"].read_text(encoding="utf-8")
    shape = load.Shape(requests=16) if arguments.quick else load.Shape()
    details: Dict[str, List[dict]] = {}
    if "http" in arguments.parts:
        def http(engine, turn: int) -> None:
            run = engines.http_load(engine, arguments.threads, shape, source, turn)
            details.setdefault(engine.name, []).append(run)
            keep(values, engine, http_tokens=run["new_tokens_per_second"], http_first_p95=run["first_token_p95_ms"])
            keep(values, engine, peak_memory=run["peak_memory_bytes"] / (1 << 20))

        turns(arguments.repeat, [*own, served], http, "16 clients")
    if "chat" in arguments.parts:
        def chat(engine, turn: int) -> None:
            run = engines.start_and_chat(engine, arguments.threads, source, turn)
            details.setdefault(engine.name, []).append(run)
            keep(values, engine, second_turn=run["second_turn_ms"], start=run["start_ms"])

        turns(arguments.repeat, [*own, served], chat, "start and second turn")
    for engine in [*own, *peers]:
        found["engines"].append(
            {
                "name": engine.name,
                "peer": engine.peer,
                "kernels": engine.kernels,
                "roofline": roofline(engine.rooflines),
                "threads": threads[engine.name],
                "values": values[engine.name],
                "median": {key: median(taken) for key, taken in values[engine.name].items()},
                "spread": {key: spread(taken) for key, taken in values[engine.name].items()},
                "details": details.get(engine.name, []),
            }
        )
    return found


def roofline(reports: Sequence[dict]) -> Optional[dict]:
    """Medians of the machine's ceilings and of how close each row came to its own, over all turns."""
    if not reports:
        return None
    ceilings = {name: median([report["ceilings"][name] for report in reports]) for name in reports[0]["ceilings"]}
    rows: Dict[str, List[dict]] = {}
    for report in reports:
        for row in report["rows"]:
            # A run of many streams measures a short prefill, too, which is nobody's row.
            if row["name"] != "prefill" or len(report["rows"]) == 2:
                rows.setdefault(row["name"], []).append(row)
    return {
        "ceilings": ceilings,
        "rows": {
            name: {
                "percent": median([row["percent"] for row in taken]),
                "limit": taken[-1]["limit"],
                "bytes_per_token": taken[-1]["bytes_per_token"],
                "int8_operations_per_token": taken[-1]["int8_operations_per_token"],
                "f32_operations_per_token": taken[-1]["f32_operations_per_token"],
            }
            for name, taken in rows.items()
        },
    }


def roofline_table(found: dict) -> str:
    """What share of the machine's ceiling each mode of this engine reached, row by row."""
    own = [engine for engine in found["engines"] if engine.get("roofline")]
    names = list(dict.fromkeys(name for engine in own for name in engine["roofline"]["rows"]))
    rows = []
    for name in names:
        cells = [engine["roofline"]["rows"].get(name) for engine in own]
        rows.append([name, *(f"{cell['percent']:.0f} % of {cell['limit']}" if cell else "–" for cell in cells)])
    ceilings = [engine["roofline"]["ceilings"] for engine in own]
    rows.append(
        [
            "ceilings",
            *(
                f"{c['int8_operations_per_second'] / 1e9:,.0f} Gop/s, {c['f32_operations_per_second'] / 1e9:,.0f} GFLOP/s, "
                f"{c['read_bytes_per_second'] / 1e9:.0f} GB/s"
                for c in ceilings
            ),
        ]
    )
    return markdown_table(["share of the ceiling", *(engine["name"] for engine in own)], rows)


def keep(values: Dict[str, Values], engine, **found: float) -> None:
    """Adds one turn's values."""
    for key, value in found.items():
        values[engine.name].setdefault(key, []).append(value)


def turns(repeat: int, taking: Sequence[object], work: Callable, what: str) -> None:
    """Lets the engines take turns, the first one another each time."""
    with Step(what) as step:
        for turn in range(repeat):
            shift = turn % len(taking)
            for engine in [*taking[shift:], *taking[:shift]]:
                step.update(f"{turn + 1}/{repeat}, {engine.name}")
                work(engine, turn)


def raw(
    arguments: argparse.Namespace,
    taking: Sequence[object],
    values: Dict[str, Values],
    threads: Dict[str, Dict[str, int]],
) -> None:
    """Prefill and decode without a server. A turn before the first finds each engine's best thread count."""
    counts = sorted({1, arguments.threads}, reverse=True)

    def take(engine, count: int, measures: Sequence[str]) -> Dict[str, float]:
        found: Dict[str, float] = {}
        if {"prefill", "decode_1"} & set(measures):
            single = engine.single(count)
            found.update(prefill=single["prefill"], decode_1=single["decode"])
        wanted = [streams for streams in STREAMS if f"decode_{streams}" in measures]
        if wanted:
            found.update({f"decode_{streams}": speed for streams, speed in engine.streams(count, wanted).items()})
        return {name: found[name] for name in measures}

    names = ["prefill", "decode_1", *(f"decode_{streams}" for streams in STREAMS)]
    with Step("thread counts") as step:
        for engine in taking:
            best: Dict[str, Tuple[float, int]] = {}
            # Prefill and many streams are bound by arithmetic: more threads always help there.
            for count in counts:
                step.update(f"{engine.name}, {count}")
                if count != counts[0] and arguments.quick:
                    continue
                for name, speed in take(engine, count, ["prefill", "decode_1"]).items():
                    best[name] = max(best.get(name, (0.0, count)), (speed, count))
            threads[engine.name] = {name: best[name][1] if name in best else counts[0] for name in names}

        for engine in taking:
            engine.rooflines.clear()  # the search is no measurement

    def work(engine, _turn: int) -> None:
        chosen = threads[engine.name]
        for count in counts:
            measures = [name for name in names if chosen[name] == count]
            if measures:
                keep(values, engine, **take(engine, count, measures))

    turns(arguments.repeat, taking, work, "prefill and decode")


def best_for_serving(values: Dict[str, Values], comparable: Sequence[str], peers: Sequence[engines.LlamaCpp]):
    """The quantization that serves best, by prefill and 16 streams together."""
    candidates = [peer for peer in peers if peer.kind in comparable] or list(peers)

    def worth(peer: engines.LlamaCpp) -> float:
        taken = values[peer.name]
        return math.prod(median(taken[key]) for key in ("prefill", "decode_16")) if "prefill" in taken else 0.0

    return max(candidates, key=worth)


def best(found: dict, peer: bool, measure_name: str, more: bool, kinds: Optional[Sequence[str]] = None):
    """The best engine of a side in a measure: its name and value."""
    side = [
        (engine["median"][measure_name], engine["name"])
        for engine in found["engines"]
        if engine["peer"] == peer
        and measure_name in engine["median"]
        and (kinds is None or engine["name"].partition(" ")[2] in kinds)
    ]
    return (max(side) if more else min(side)) if side else None


def ratio(own: float, peer: float, more: bool) -> float:
    """How many times better."""
    return own / peer if more else peer / own


def markdown(result: dict) -> str:
    """The tables for people."""
    facts = result["machine"]
    lines = [
        f"# byzerllm {result['commit']} beside llama.cpp {result['peers']['llama.cpp']['version']}",
        "",
        f"{result['date']}, {facts['processor']} ({', '.join(facts['instructions'])}), {facts['cores']} cores, "
        f"{facts['memory_bytes'] / (1 << 30):.0f} GiB, {facts['system']}; load average "
        f"{facts['load_average'][0]:.1f} at the beginning, {facts['load_average_at_end'][0]:.1f} at the end. "
        f"{result['threads']} pinned threads, medians of {result['repeat']} alternating runs"
        f"{', QUICK: no measurement' if result['quick'] else ''}.",
    ]
    for found in result["models"]:
        lines += ["", f"## {found['title']}"]
        if any(engine["values"] for engine in found["engines"]):
            lines += ["", model_table(found)]
        if any(engine.get("roofline") for engine in found["engines"]):
            lines += ["", roofline_table(found)]
        known = found["quality"]["peers"]
        rivals = f"llama.cpp of comparable quality: {', '.join(found['comparable'])}."
        unknown = [kind for kind in found["comparable"] if kind not in known or "file" not in known]
        if unknown:
            rivals += f" Not measured, and so taken for comparable: {', '.join(unknown)} (`--only quality`)."
        lines += ["", rivals + (f" Over HTTP: {found['served']}." if served_something(found) else ""), ""]
        kernels = {engine["name"]: engine["kernels"] for engine in found["engines"] if engine["kernels"]}
        lines += [f"- {name}: {kernel}" for name, kernel in kernels.items()]
        if known or found["quality"]["own"]:
            lines += ["", quality.table(found["quality"])]
    return "\n".join(lines) + "\n"


def served_something(found: dict) -> bool:
    """Whether a server was measured."""
    return any({"http_tokens", "start"} & set(engine["values"]) for engine in found["engines"])


def model_table(found: dict) -> str:
    """Every measure of every engine, and the ratio of the best to the peer's best of comparable quality."""
    names = [engine["name"] for engine in found["engines"]]
    own_names = [engine["name"] for engine in found["engines"] if not engine["peer"]]
    rows = []
    for key, words, more, aim in MEASURES:
        if not any(key in engine["median"] for engine in found["engines"]):
            continue
        peer = best(found, True, key, more, found["comparable"])
        row = [words]
        for engine in found["engines"]:
            value = engine["median"].get(key)
            mark = f" ±{engine['spread'][key] * 100:.0f} %" if value is not None else ""
            row.append(f"{number(value)}{mark}")
        for name in own_names:
            value = next(engine["median"].get(key) for engine in found["engines"] if engine["name"] == name)
            row.append(f"{ratio(value, peer[0], more):.2f} ×" if peer and value else "–")
        rows.append([*row, f"{aim:g} ×"])
    ratios = [f"ratio, {name.partition(' ')[2]}" for name in own_names]
    return markdown_table(["", *names, *ratios, "aim"], rows)


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
