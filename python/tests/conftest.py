"""What the tests share: tiny checkpoints, servers of their own, fresh interpreters.

Every test has its own runtime directory, so that it finds no server but those it starts.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINTS = REPOSITORY / "crates" / "model" / "tests" / "fixtures"

# Loading and answering take milliseconds; this bounds a test that would otherwise hang.
PATIENCE = 60


class Server:
    """A `byzerllm serve` process."""

    def __init__(self, state, environment):
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, "-m", "byzerllm", "serve", "--port", "0", "--state", str(state)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        line = self.process.stdout.readline()
        assert line.startswith("byzerllm serves on http://"), (line, self.process.wait(PATIENCE), self.errors)
        self.url = line.split()[3].rstrip(",")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self, how=signal.SIGINT):
        """Ends the server and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path_factory, monkeypatch):
    """The directory in which servers of this test tell where they are."""
    directory = tmp_path_factory.mktemp("runtime")
    directory.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("BYZERLLM_URL", raising=False)
    return directory


@pytest.fixture
def start_server(tmp_path, runtime_directory):
    """Starts servers, and ends them with the test."""
    servers = []

    def start(state=None):
        server = Server(state or tmp_path / f"state-{len(servers)}", dict(os.environ))
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(PATIENCE)


class Simulated:
    """A `byzerllm simulate` process, and what a deployment of its vendor needs."""

    def __init__(self, vendor, options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "byzerllm", "simulate", vendor, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first, command = self.process.stdout.readline(), self.process.stdout.readline()
        assert " is simulated on " in first, (first, self.process.wait(PATIENCE), self.process.stderr.read())
        self.url = first.split()[4].rstrip(",")
        words = shlex.split(command)
        self.kind = words[words.index("--type") + 1]
        self.parameters = dict(
            word.split("=", 1) for before, word in zip(words, words[1:], strict=False) if before == "--set"
        )

    def bill(self):
        """Ends the vendor; the lines of its bill."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)[0].splitlines()


@pytest.fixture
def simulated():
    """Simulates vendors, and ends them with the test."""
    vendors = []

    def start(vendor, *options):
        vendors.append(Simulated(vendor, options))
        return vendors[-1]

    yield start
    for vendor in vendors:
        vendor.process.kill()
        vendor.process.communicate(timeout=PATIENCE)


@pytest.fixture
def checkpoint():
    """A tiny checkpoint with a chat template."""
    return str(CHECKPOINTS / "qwen2-bf16")


def until(true):
    """Waits for a state that is reached by itself."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def edited(source, target, **changes):
    """A copy of a checkpoint with changed JSON files, by the name of the file; `None` removes a key."""
    shutil.copytree(source, target)
    for name, fields in changes.items():
        path = target / f"{name}.json"
        content = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return str(target)


@pytest.fixture
def endless(tmp_path):
    """A checkpoint without end tokens and with much room: its answers go on for very long."""
    return edited(
        CHECKPOINTS / "llama-tied-f32",
        tmp_path / "endless",
        config={"max_position_embeddings": 60_000, "eos_token_id": None},
        generation_config={"eos_token_id": None},
        tokenizer_config={"eos_token": None},
    )


def scripted(target, pieces, template, **config):
    """A checkpoint that answers whatever it is asked with these texts, a token each; `config` is for its `config.json`."""
    source = CHECKPOINTS / "qwen2-bf16"
    vocabulary, hidden, end = 300, 64, 2
    edited(
        source,
        target,
        config={"vocab_size": vocabulary + len(pieces), "max_position_embeddings": 4096, **config},
        tokenizer_config={"chat_template": template, "added_tokens_decoder": {}},
        tokenizer={
            "added_tokens": json.loads((source / "tokenizer.json").read_text())["added_tokens"]
            + [
                {
                    "id": vocabulary + index,
                    "content": piece,
                    "normalized": False,
                    "special": False,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                }
                for index, piece in enumerate(pieces)
            ]
        },
    )

    # The layers do nothing. Every token of a prompt points to direction 0, piece i to direction i + 1; what follows
    # a direction is piece i, and the end after the last.
    one, eight = b"\x80\x3f", b"\x00\x41"

    def rows(places, value):
        data = bytearray(2 * hidden * len(places))
        for row, place in enumerate(places):
            if place is not None:
                data[2 * (hidden * row + place) : 2 * (hidden * row + place + 1)] = value
        return bytes(data)

    follows = [None] * vocabulary + list(range(len(pieces)))
    follows[end] = len(pieces)
    path = target / "model.safetensors"
    file = path.read_bytes()
    size = int.from_bytes(file[:8], "little")
    header, tensors = json.loads(file[8 : 8 + size]), b""
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            entry["shape"][0] = vocabulary + len(pieces)
            directions = [0] * vocabulary + [index + 1 for index in range(len(pieces))]
            data = rows(follows, eight) if name.startswith("lm_head") else rows(directions, one)
        else:
            begin, stop = entry["data_offsets"]
            data = one * ((stop - begin) // 2) if "norm" in name else bytes(stop - begin)
        entry["data_offsets"] = [len(tensors), len(tensors) + len(data)]
        tensors += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    return str(target)


def long_reranker(target, positions=256):
    """A tiny reranker that reads longer pairs: its rows of positions come again."""
    limit = {"max_position_embeddings": positions}
    edited(
        CHECKPOINTS / "encoders" / "distilbert-rank",
        target,
        config=limit,
        tokenizer_config={"model_max_length": positions},
    )
    path = target / "model.safetensors"
    file = path.read_bytes()
    size = int.from_bytes(file[:8], "little")
    header, tensors = json.loads(file[8 : 8 + size]), b""
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, stop = (8 + size + place for place in entry["data_offsets"])
        data = file[begin:stop]
        if "position_embeddings" in name:
            row = len(data) // entry["shape"][0]
            data = (data * (positions // entry["shape"][0] + 1))[: positions * row]
            entry["shape"][0] = positions
        entry["data_offsets"] = [len(tensors), len(tensors) + len(data)]
        tensors += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    return str(target)


@pytest.fixture
def untemplated(tmp_path):
    """A checkpoint without a chat template."""
    return edited(
        CHECKPOINTS / "qwen2-bf16", tmp_path / "untemplated", tokenizer_config={"chat_template": None}
    )


@pytest.fixture
def llm():
    """A client whose deployments are gone after the test."""
    from byzerllm.utils.client import ByzerLLM

    client = ByzerLLM()
    yield client
    for status in client._endpoint.list():
        client.undeploy(status["spec"]["name"], force=True)


def run_program(source, timeout=PATIENCE, **kwargs):
    """Runs Python source in a fresh interpreter and returns the finished process."""
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=timeout, check=False, **kwargs
    )


# A model that thinks, says something and calls the tool `weather`.
CALLING_TEMPLATE = (
    "{% for tool in tools or [] %}<tool_call>{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name }} {{ call.function.arguments.city }}{% endfor %}\n{% endfor %}"
    "assistant:{# <think> #}"
)
CALLING_PIECES = [
    "<think>Rain?",
    "</think>\n",
    "One moment.\n<tool_",
    'call>\n{"name": "weather", "argu',
    'ments": {"city": "Pa',
    'ris"}}\n</tool_call>',
]


@pytest.fixture
def chatting(start_server, checkpoint):
    """A server with a tiny model, `chat`."""
    from byzerllm.utils.client import ByzerLLM

    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")
    return server


@pytest.fixture
def thinking(start_server, tmp_path):
    """A server whose model, `chat`, thinks, says something and calls."""
    from byzerllm.utils.client import ByzerLLM

    server = start_server()
    ByzerLLM().deploy(scripted(tmp_path / "scripted", CALLING_PIECES, CALLING_TEMPLATE), udf_name="chat")
    return server
