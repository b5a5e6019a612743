"""The exact mode's perplexity beside that of Hugging Face transformers, in 32-bit floats on the same dequantized weights.

The other scripts hold every mode against the exact one; this one shows that the exact one is what it should be. It needs
torch, transformers and gguf, so run it with a Python that has them. A few windows are enough: the first of each text.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Dict, List

import corpus
import engines
import models
from common import ROOT, Problem, Step, commit, markdown_table, run

TOLERANCE = 0.0005


def main() -> int:
    """Measures both and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "byzerllm")
    parser.add_argument("--model", choices=sorted(models.MODELS), action="append", help="may be repeated; all by default")
    parser.add_argument("--texts", default="english,chinese,code", help="texts, with commas")
    arguments = parser.parse_args()
    try:
        rows = []
        for name in arguments.model or sorted(models.MODELS, reverse=True):
            rows += compare(arguments.binary, models.MODELS[name], arguments.texts.split(","))
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        return 130
    header = ["", "tokens", "byzerllm exact", "transformers, f32", "difference"]
    print(f"byzerllm {commit()}\n\n{markdown_table(header, [row[:5] for row in rows])}")
    return 0 if all(abs(row[5]) <= TOLERANCE for row in rows) else 1


def compare(binary: Path, model: models.Model, names: List[str]) -> List[list]:
    """A row for each text."""
    with Step("texts") as step:
        texts = corpus.fetch(step)
    with Step(f"model {model.title}") as step:
        path = models.fetch(model, sys.executable, step)
    shorts = {name: corpus.beginning(texts[name]) for name in names}
    own: Dict[str, dict] = {}
    for name, short in shorts.items():
        with Step(f"byzerllm, {name}"):
            command = [binary, "bench", "--model", path, "--context", engines.CONTEXT, "--perplexity", short]
            own[name] = json.loads(run([*command, "--compute", "exact", "--json"]))
    rows = []
    with Step("transformers") as step:
        found = of_transformers(path, shorts, step)
    for name in names:
        windows, perplexity = found[name]
        if windows != own[name]["files"][0]["windows"]:
            raise Problem(f"the tokenizers cut the {name} text differently", "Report this.")
        exact = own[name]["modes"][0]["perplexity"]
        change = exact / perplexity - 1
        tokens = own[name]["files"][0]["tokens"]
        rows.append(
            [f"{model.title}, {name}", f"{tokens:,}", f"{exact:.5f}", f"{perplexity:.5f}", f"{change:+.5%}", change]
        )
    return rows


def of_transformers(path: Path, texts: Dict[str, Path], step: Step) -> Dict[str, tuple]:
    """Windows and perplexity of each text."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise Problem(str(error), "Run this with a Python that has torch, transformers and gguf.") from error
    folder, file = str(path.parent), path.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    network = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    size, half = engines.CONTEXT, engines.CONTEXT // 2
    found = {}
    for name, text in texts.items():
        ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False)
        windows = torch.tensor(ids[: len(ids) // size * size]).view(-1, size)
        loss = 0.0
        for number, window in enumerate(windows):
            step.update(f"{name} {number + 1}/{len(windows)}")
            with torch.no_grad():
                # The rows of the second half, but for the last, foretell the tokens after them.
                logits = network(window[None], logits_to_keep=half).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(logits, window[half + 1 :], reduction="sum").item()
        found[name] = (len(windows), math.exp(loss / (len(windows) * (half - 1))))
    return found


if __name__ == "__main__":
    sys.exit(main())
