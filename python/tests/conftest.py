"""What the tests share: tiny checkpoints, servers of their own, fresh interpreters.

Every test has its own runtime directory, so that it finds no server but those it starts.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
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


@pytest.fixture
def checkpoint():
    """A tiny checkpoint with a chat template."""
    return str(CHECKPOINTS / "qwen2-bf16")


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
