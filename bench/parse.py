"""What other programs print, as numbers."""

import json
import re
from typing import Dict

from common import Problem


def llama_bench(text: str) -> Dict[str, float]:
    """Tokens per second of `llama-bench -o json`: `prefill` for tests without generation, `decode` for the others."""
    found = {}
    for test in json.loads(text):
        kind = "decode" if test["n_gen"] else "prefill"
        found[kind] = float(test["avg_ts"])
    return found


def batched_bench(text: str) -> Dict[int, float]:
    """Tokens per second of all streams together while they generate, by streams."""
    found = {}
    for line in text.splitlines():
        if line.startswith("{"):
            test = json.loads(line)
            found[int(test["pl"])] = float(test["speed_tg"])
    if not found:
        raise Problem("llama-batched-bench printed no result", "Run it by hand.")
    return found


def perplexity(text: str) -> float:
    """The final estimate of llama-perplexity."""
    found = re.findall(r"Final estimate: PPL = ([0-9.]+)", text)
    if not found:
        raise Problem("llama-perplexity printed no final estimate", "Run it by hand.")
    return float(found[-1])


def windows(text: str) -> int:
    """How many windows llama-perplexity scored."""
    found = re.search(r"calculating perplexity over (\d+) chunks", text)
    if not found:
        raise Problem("llama-perplexity did not say how many windows it scored", "Run it by hand.")
    return int(found[1])


def status_bytes(text: str, name: str) -> int:
    """A field of /proc/PID/status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    if not found:
        raise ValueError(f"no {name}")
    return int(found[1]) * 1024
