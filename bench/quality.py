"""Perplexity of every engine on the same windows of the same texts, measured once and kept in the cache.

A result is kept under the checksums of all that it depends on: the text, the model's file, the program. So speed can be
measured again and again beside quantizations whose quality is known.
"""

import json
import math
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import engines
import llama_cpp
import models
from common import Problem, Step, cache_directory, markdown_table, text_sha256, write_json

COMPARABLE = 1.02  # perplexity of a quantization over that of the file
# How far a mode's perplexity may lie from that of the exact mode.
LIMITS = {"exact": 0.0, "standard": 0.005, "fast": 0.01}


def kept(what: str, key: Dict[str, object], measure: Optional[Callable[[], dict]]) -> Optional[dict]:
    """The result under this key: from the cache, else measured and put there. None where it may not be measured."""
    name = text_sha256(json.dumps(key, sort_keys=True))[:16]
    path = cache_directory() / "quality" / f"{what}-{name}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["found"]
    if measure is None:
        return None
    found = measure()
    write_json(path, {"key": key, "found": found})
    return found


def of_text(path: Path) -> str:
    """The checksum of a text's file."""
    return models.sha256(path)


def of_peer(
    peer: engines.LlamaCpp, texts: Dict[str, Path], threads: int, measure: bool = True
) -> Optional[Dict[str, object]]:
    """llama.cpp with one quantization; None when it is not known and may not be measured."""
    facts = {
        "engine": "llama.cpp",
        "version": llama_cpp.VERSION,
        "options": list(llama_cpp.OPTIONS),
        "model": models.sha256(peer.model),
        "context": engines.CONTEXT,
    }
    found = {}
    for name, path in texts.items():
        work = (lambda path=path: peer.quality(path, threads)) if measure else None
        part = kept(f"{peer.model.stem}-{name}", {**facts, "text": of_text(path)}, work)
        if part is None:
            return None
        found[name] = part
    return {**together(found), "texts": found}


def of_own(engine: engines.Byzerllm, texts: Dict[str, Path]) -> Dict[str, dict]:
    """This engine's compute modes."""
    facts = {
        "engine": "byzerllm",
        "program": models.sha256(engine.binary),
        "model": models.sha256(engine.model),
        "environment": engine.environment,
        "context": engines.CONTEXT,
    }
    modes: Dict[str, dict] = {}
    for name, path in texts.items():
        report = kept(
            f"{engine.model.stem}-own-{name}", {**facts, "text": of_text(path)}, lambda path=path: engine.quality(path)
        )
        text = report["files"][0]
        for mode in report["modes"]:
            entry = modes.setdefault(mode["compute"], {"kernels": mode["kernels"], "texts": {}})
            score = {key: mode[key] for key in ("perplexity", "divergence", "greedy_agreement")}
            score["divergence_99th_percentile"] = mode["files"][0]["divergence_99th_percentile"]
            entry["texts"][name] = {**score, "tokens": text["tokens"], "windows": text["windows"]}
    for entry in modes.values():
        entry.update(together(entry["texts"]))
    return modes


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
    found: Dict[str, dict] = {"peers": {}, "own": {}}
    if own is not None:
        with Step("perplexity, byzerllm"):
            found["own"] = of_own(own, texts)
    for peer in peers:
        with Step(f"perplexity, {peer.name}"):
            found["peers"][peer.kind] = of_peer(peer, texts, threads)
    check_windows(found)
    return found


def known(peers: Sequence[engines.LlamaCpp], texts: Dict[str, Path]) -> Optional[dict]:
    """What the cache knows of the quantizations; None when it lacks one of them."""
    with Step("perplexities in the cache"):
        found = {peer.kind: of_peer(peer, texts, 1, measure=False) for peer in peers}
    return None if None in found.values() else {"peers": found, "own": {}}


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


def comparable_kinds(found: Optional[dict], kinds: Sequence[str]) -> List[str]:
    """The quantizations whose perplexity is near that of the file; all while that is not known."""
    if not found or "file" not in found["peers"]:
        return list(kinds)
    limit = found["peers"]["file"]["perplexity"] * COMPARABLE
    return [kind for kind in kinds if found["peers"][kind]["perplexity"] <= limit]


def change(value: float, reference: Optional[float], digits: int = 2) -> str:
    """How far a perplexity lies from that of a reference."""
    return "–" if reference is None else f"{(value / reference - 1) * 100:+.{digits}f} %"


def table(found: dict) -> str:
    """Perplexities beside what they are held against, and how often the modes agree with the exact one."""
    rows_of = [(f"byzerllm {mode}", entry) for mode, entry in found["own"].items()]
    rows_of += [(f"llama.cpp {kind}", entry) for kind, entry in found["peers"].items()]
    if not rows_of:
        return ""
    exact, file = found["own"].get("exact"), found["peers"].get("file")
    first = rows_of[0][1]
    rows = []
    for name, entry in rows_of:
        row = [name]
        for text, score in entry["texts"].items():
            beside = exact["texts"][text]["perplexity"] if exact and entry is not exact else None
            mark = f" ({change(score['perplexity'], beside)})" if beside else ""
            row.append(f"{score['perplexity']:.3f}{mark}")
        row += [f"{entry['perplexity']:.3f}", change(entry["perplexity"], exact["perplexity"] if exact else None)]
        row.append(change(entry["perplexity"], file["perplexity"]) if file and name.startswith("llama") else "–")
        rows.append(row)
    texts = [f"{text}, {score['tokens']:,} tokens" for text, score in first["texts"].items()]
    header = ["perplexity", *texts, f"all {first['tokens']:,}", "over exact", "over the file"]
    return "\n\n".join(part for part in (markdown_table(header, rows), agreement_table(found["own"])) if part)


def agreement_table(own: Dict[str, dict]) -> str:
    """Divergence from the exact mode and greedy agreement with it, and whether the mode keeps its limit."""
    exact = own.get("exact")
    rows = []
    for mode, entry in own.items():
        if entry is exact or exact is None:
            continue
        cells = [
            f"{score['divergence']:.5f} / {score['greedy_agreement'] * 100:.2f} %"
            for score in (*entry["texts"].values(), entry)
        ]
        beyond = abs(entry["perplexity"] / exact["perplexity"] - 1) > LIMITS[mode]
        rows.append([f"byzerllm {mode}", *cells, f"{LIMITS[mode] * 100:g} %: {'MISSED' if beyond else 'kept'}"])
    if not rows:
        return ""
    header = ["divergence from exact / same most likely token", *exact["texts"], "all", "limit of perplexity"]
    return markdown_table(header, rows)
