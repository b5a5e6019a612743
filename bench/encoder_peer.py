"""One peer of `encoders.py`: it loads a model once and does what its standard input asks for, line by line.

It runs with the Python that has the peers' packages: sentence-transformers with torch, ONNX Runtime, tokenizers and numpy.
"""

import json
import statistics
import sys
import time
from pathlib import Path


def lines(path):
    """The texts of a file, one a line."""
    return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


class SentenceTransformers:
    """torch, 32-bit floats. It sorts texts by their length by itself."""

    def __init__(self, model, threads, batch):
        import sentence_transformers
        import torch

        torch.set_num_threads(threads)
        self.batch = batch
        self.model = sentence_transformers.SentenceTransformer(model, device="cpu")
        self.version = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}"

    def encode(self, texts):
        """Vectors of unit length."""
        return self.model.encode(
            texts, batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )


class OnnxRuntime:
    """ONNX Runtime with the int8 file. Each batch is filled up to its longest text."""

    def __init__(self, model, threads, batch):
        import numpy
        import onnxruntime
        import tokenizers

        self.numpy, self.batch = numpy, batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        folder = Path(model)
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(512)
        self.version = f"onnxruntime {onnxruntime.__version__}"

    def encode(self, texts):
        """Vectors of unit length, of the first token."""
        numpy = self.numpy
        rows = []
        for start in range(0, len(texts), self.batch):
            encoded = self.tokenizer.encode_batch(texts[start : start + self.batch])
            longest = max(len(entry.ids) for entry in encoded)
            fed = {name: numpy.zeros((len(encoded), longest), dtype=numpy.int64) for name in self.inputs}
            for row, entry in enumerate(encoded):
                for name, values in (
                    ("input_ids", entry.ids),
                    ("attention_mask", entry.attention_mask),
                    ("token_type_ids", entry.type_ids),
                ):
                    if name in fed:
                        fed[name][row, : len(values)] = values
            states = self.session.run(None, fed)[0]
            first = states[:, 0] if states.ndim == 3 else states
            rows.append(first / numpy.linalg.norm(first, axis=1, keepdims=True))
        return numpy.concatenate(rows)


PEERS = {"sentence-transformers": SentenceTransformers, "onnxruntime": OnnxRuntime}


def main():
    """Reads commands and answers each with a line of JSON."""
    kind, model, threads, batch = sys.argv[1:]
    peer = PEERS[kind](model, int(threads), int(batch))
    print(json.dumps({"version": peer.version}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        texts = lines(command["file"])
        if command["do"] == "encode":
            started = time.perf_counter()
            peer.encode(texts)
            answer = {"seconds": time.perf_counter() - started}
        elif command["do"] == "rows":
            peer.encode(texts).astype("<f4").tofile(command["to"])
            answer = {}
        else:
            shortest, times = min(texts, key=lambda text: len(text.encode())), []
            for _ in range(50):
                started = time.perf_counter()
                peer.encode([shortest])
                times.append(time.perf_counter() - started)
            answer = {"ms": statistics.median(times) * 1000}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
