"""How well vectors agree with people: Spearman's rank correlation on the Lee corpus.

    python bench/lee.py --url http://127.0.0.1:8000 --model emb --lee DIRECTORY

DIRECTORY holds `lee.cor` and `similarities0-1.txt` (Lee, Pincombe and Welsh 2005; `gensim/test/test_data` of the package
gensim): 50 news texts, and what people said of how alike each two are. Cosines of the deployment's vectors of the 1,225
pairs are ranked and compared with theirs. Standard library only.
"""

import argparse
import json
import math
import os
import urllib.request
from pathlib import Path


def vectors(url, model, texts):
    """The deployment's vectors."""
    body = json.dumps({"model": model, "input": texts, "encoding_format": "float"}).encode()
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("BYZERLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/embeddings", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        rows = json.load(answer)["data"]
    return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]


def cosine(left, right):
    """The cosine of two vectors' angle."""
    def dot(a, b):
        return math.fsum(x * y for x, y in zip(a, b))

    return dot(left, right) / math.sqrt(dot(left, left) * dot(right, right))


def ranks(values):
    """Ranks from 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            found[index] = (start + end - 1) / 2
        start = end
    return found


def spearman(left, right):
    """The correlation of the ranks."""
    left, right = ranks(left), ranks(right)
    mean = (len(left) - 1) / 2

    def product(a, b):
        return math.fsum((x - mean) * (y - mean) for x, y in zip(a, b))

    return product(left, right) / math.sqrt(product(left, left) * product(right, right))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True, help="the deployment's name")
    parser.add_argument("--lee", type=Path, required=True, help="the directory with lee.cor")
    arguments = parser.parse_args()
    texts = [line for line in (arguments.lee / "lee.cor").read_text(encoding="latin-1").splitlines() if line.strip()]
    lines = (arguments.lee / "similarities0-1.txt").read_text().splitlines()
    people = [[float(value) for value in line.split()] for line in lines if line.strip()]
    found = vectors(arguments.url, arguments.model, texts)
    pairs = [(first, second) for first in range(len(texts)) for second in range(first + 1, len(texts))]
    ours = [cosine(found[first], found[second]) for first, second in pairs]
    theirs = [people[first][second] for first, second in pairs]
    print(f"{arguments.model}: {len(pairs)} pairs, Spearman {spearman(ours, theirs):.4f}")


if __name__ == "__main__":
    main()
