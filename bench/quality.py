"""Perplexity of every engine on the same windows of the same texts, measured once and kept in the cache.

A result is kept under the checksums of all that it depends on: the text, the model's file, the program. So speed can be
measured again and again beside quantizations whose quality is known. `python3 bench/quality.py` shows what the cache knows.
"""

import argparse
import json
import math
import os
import queue
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import corpus
import engines
import llama_cpp
import models
from common import ROOT, Problem, Step, cache_directory, markdown_table, text_sha256, write_json

KINDS = ("file", "Q4_0", "IQ4_NL", "Q8_0")
COMPARABLE = 1.02  # perplexity of a quantization over that of the file
# How far a mode's perplexity may lie from that of the exact mode.
LIMITS = {"exact": 0.0, "standard": 0.005, "fast": 0.01}


@dataclass(frozen=True)
class Work:
    """An engine and a text, and all that the result depends on."""

    engine: object
    text: Path
    title: str
    key: Dict[str, object]

    def path(self) -> Path:
        """Where the result is kept."""
        name = text_sha256(json.dumps(self.key, sort_keys=True))[:16]
        return cache_directory() / "quality" / f"{self.title}-{name}.json"

    def known(self) -> Optional[dict]:
        """The result in the cache."""
        path = self.path()
        return json.loads(path.read_text(encoding="utf-8"))["found"] if path.is_file() else None

    def result(self, core: int) -> dict:
        """The result in the cache, else measured and put there."""
        found = self.known()
        if found is None:
            found = self.engine.quality(self.text, core)
            write_json(self.path(), {"key": self.key, "found": found})
        return found


def all_results(work: Sequence[Work], threads: int) -> List[dict]:
    """Each on one core, several at once: no thread waits for another, and no result depends on how many there are."""
    free: "queue.Queue[int]" = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[:threads]:
        free.put(core)
    done = 0

    def one(task: Work) -> dict:
        nonlocal done
        core = free.get()
        try:
            found = task.result(core)
        finally:
            free.put(core)
        done += 1
        step.update(f"{done}/{len(work)}, {task.title}")
        return found

    with Step("perplexities") as step, ThreadPoolExecutor(max_workers=threads) as pool:
        tasks = [pool.submit(one, task) for task in work]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
            return [task.result() for task in tasks if task.done()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def work_of_peer(peer: engines.LlamaCpp, text: Path) -> Work:
    """llama.cpp with one quantization on one text."""
    key = {
        "engine": "llama.cpp",
        "version": llama_cpp.VERSION,
        "options": list(llama_cpp.OPTIONS),
        "model": models.sha256(peer.model),
        "context": engines.CONTEXT,
        "text": models.sha256(text),
    }
    return Work(peer, text, f"{peer.model.stem}-{text.stem}", key)


def work_of_own(engine: engines.Byzerllm, text: Path) -> Work:
    """This engine's compute modes on one text."""
    key = {
        "engine": "byzerllm",
        "program": models.sha256(engine.binary),
        "model": models.sha256(engine.model),
        "environment": engine.environment,
        "context": engines.CONTEXT,
        "text": models.sha256(text),
    }
    return Work(engine, text, f"{engine.model.stem}-own-{text.stem}", key)


def by_mode(reports: Dict[str, dict]) -> Dict[str, dict]:
    """The reports of this engine on each text, mode by mode."""
    modes: Dict[str, dict] = {}
    for name, report in reports.items():
        text = report["files"][0]
        for mode in report["modes"]:
            entry = modes.setdefault(mode["compute"], {"kernels": mode["kernels"], "texts": {}})
            score = {key: mode[key] for key in ("perplexity", "divergence", "greedy_agreement")}
            score["divergence_99th_percentile"] = mode["files"][0]["divergence_99th_percentile"]
            entry["texts"][name] = {**score, "tokens": text["tokens"], "windows": text["windows"]}
    return {mode: {**entry, **together(entry["texts"])} for mode, entry in modes.items()}


def together(parts: Dict[str, dict]) -> Dict[str, float]:
    """All texts as one: each token weighs the same."""
    tokens = sum(part["tokens"] for part in parts.values())

    def mean(of: Callable[[dict], float]) -> float:
        return sum(of(part) * part["tokens"] for part in parts.values()) / tokens

    found = {"tokens": tokens, "perplexity": math.exp(mean(lambda part: math.log(part["perplexity"])))}
    for key in ("divergence", "greedy_agreement"):
        if all(key in part for part in parts.values()):
            found[key] = mean(lambda part: part[key])
    return found


def measure(
    own: Optional[engines.Byzerllm], peers: Sequence[engines.LlamaCpp], texts: Dict[str, Path], threads: int
) -> dict:
    """Every engine on every text."""
    work = {("own", name): work_of_own(own, text) for name, text in texts.items()} if own else {}
    work.update({(peer.kind, name): work_of_peer(peer, text) for name, text in texts.items() for peer in peers})
    results = dict(zip(work, all_results(list(work.values()), threads)))

    def of(engine: str) -> Dict[str, dict]:
        return {name: results[engine, name] for name in texts}

    found = {"own": by_mode(of("own")) if own else {}}
    found["peers"] = {peer.kind: of_texts(of(peer.kind)) for peer in peers}
    check_windows(found)
    return found


def known(
    own: Optional[engines.Byzerllm], peers: Sequence[engines.LlamaCpp], texts: Dict[str, Path]
) -> dict:
    """What the cache knows; of some engines perhaps not every text."""

    def of(work: Dict[str, Work]) -> Dict[str, dict]:
        parts = {name: task.known() for name, task in work.items()}
        return {name: part for name, part in parts.items() if part is not None}

    found = {peer.kind: of({name: work_of_peer(peer, text) for name, text in texts.items()}) for peer in peers}
    return {
        "own": by_mode(of({name: work_of_own(own, text) for name, text in texts.items()})) if own else {},
        "peers": {kind: of_texts(parts) for kind, parts in found.items() if parts},
    }


def of_texts(parts: Dict[str, dict]) -> dict:
    """The texts' results and what they are together."""
    return {**together(parts), "texts": parts}


def check_windows(found: dict) -> None:
    """Both sides must have scored the same tokens."""
    sides = [*found["own"].values(), *found["peers"].values()]
    for name in sides[0]["texts"] if sides else ():
        counts = {side["texts"][name]["tokens"] for side in sides}
        if len(counts) != 1:
            raise Problem(
                f"the engines scored {' and '.join(map(str, sorted(counts)))} tokens of the {name} text",
                "Report this: their tokenizers do not agree.",
            )


def over(entry: dict, reference: Optional[dict]) -> Optional[float]:
    """A perplexity over that of a reference, on the texts that both have scored."""
    shared = [name for name in entry["texts"] if reference and name in reference["texts"]]
    if not shared:
        return None
    own, other = ({name: side["texts"][name] for name in shared} for side in (entry, reference))
    return together(own)["perplexity"] / together(other)["perplexity"]


def comparable_kinds(found: dict, kinds: Sequence[str]) -> List[str]:
    """The quantizations whose perplexity is near that of the file. One of which nothing is known is a rival, too."""
    peers = found["peers"]

    def near(kind: str) -> bool:
        ratio = over(peers[kind], peers.get("file")) if kind in peers else None
        return ratio is None or ratio <= COMPARABLE

    return [kind for kind in kinds if near(kind)]


def change(ratio: Optional[float]) -> str:
    """How far a perplexity lies from that of a reference."""
    return "–" if ratio is None else f"{(ratio - 1) * 100:+.2f} %"


def table(found: dict) -> str:
    """Perplexities beside what they are held against, and how often the modes agree with the exact one."""
    entries = [(f"byzerllm {mode}", entry) for mode, entry in found["own"].items()]
    entries += [(f"llama.cpp {kind}", entry) for kind, entry in found["peers"].items()]
    if not entries:
        return ""
    exact, file = found["own"].get("exact"), found["peers"].get("file")
    tokens = {name: score["tokens"] for _, entry in entries for name, score in entry["texts"].items()}
    rows = []
    for title, entry in entries:
        row = [title]
        for name in tokens:
            score = entry["texts"].get(name)
            row.append(f"{score['perplexity']:.3f}" if score else "–")
            if score and exact and entry is not exact and name in exact["texts"]:
                row[-1] += f" ({change(score['perplexity'] / exact['texts'][name]['perplexity'])})"
        row.append(f"{entry['perplexity']:.3f}" if len(entry["texts"]) == len(tokens) else "–")
        row.append(change(None if entry is exact else over(entry, exact)))
        row.append(change(None if entry is file or entry in found["own"].values() else over(entry, file)))
        rows.append(row)
    header = ["perplexity", *(f"{name}, {count:,} tokens" for name, count in tokens.items())]
    header += [f"all {sum(tokens.values()):,}", "over exact", "over the file"]
    return "\n\n".join(part for part in (markdown_table(header, rows), agreement_table(found["own"])) if part)


def agreement_table(own: Dict[str, dict]) -> str:
    """Divergence from the exact mode and greedy agreement with it, and whether the mode keeps its limit."""
    exact = own.get("exact")
    rows = []
    for mode, entry in own.items():
        if entry is exact or exact is None:
            continue
        cells = [
            f"{score['divergence']:.2g} / {score['greedy_agreement'] * 100:.2f} %"
            for score in (*entry["texts"].values(), entry)
        ]
        beyond = abs(entry["perplexity"] / exact["perplexity"] - 1) > LIMITS[mode]
        rows.append([f"byzerllm {mode}", *cells, f"{LIMITS[mode] * 100:g} %: {'MISSED' if beyond else 'kept'}"])
    if not rows:
        return ""
    header = ["divergence from exact / same most likely token", *exact["texts"], "all", "limit of perplexity"]
    return markdown_table(header, rows)


def main() -> int:
    """Shows what the cache knows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "byzerllm")
    arguments = parser.parse_args()
    for model in sorted(models.MODELS.values(), key=lambda model: model.name, reverse=True):
        path = models.cached(model)
        if path is None:
            continue
        files = {kind: llama_cpp.quantized(path, kind) for kind in KINDS}
        peers = [engines.LlamaCpp(path.parent, file, kind) for kind, file in files.items() if file.is_file()]
        own = engines.Byzerllm(arguments.binary, path, "standard", {}) if arguments.binary.is_file() else None
        print(f"## {model.title}\n\n{table(known(own, peers, corpus.cached())) or 'Nothing was measured yet.'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
