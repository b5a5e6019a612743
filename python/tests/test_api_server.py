"""The server under the import path of Byzer-LLM."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from byzerllm.utils.client.entrypoints.openai.api_server import main

MODULE = "byzerllm.utils.client.entrypoints.openai.api_server"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--api-key", "x"], "byzerllm keys create"),
        (["--served-model-name", "x"], "byzerllm deploy --name"),
        (["--prompt-template", "qwen"], "chat template"),
        (["--response-role", "robot"], "--response-role"),
        (["--allow-credentials"], "cookies"),
        (["--allowed-origins", '["*"]'], "Name the origins"),
        (["--allowed-origins", "*"], "no JSON list"),
        (["--allowed-headers", '["x"]'], "--allowed-headers"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(given, reason, capfd):
    assert main(given) == 2
    assert reason in capfd.readouterr().err


def test_a_key_in_the_environment_is_never_ignored(capfd, monkeypatch):
    monkeypatch.setenv("BYZERLLM_API_KEY", "secret")
    assert main([]) == 2
    errors = capfd.readouterr().err
    assert "BYZERLLM_API_KEY" in errors and "secret" not in errors


def test_the_module_serves(tmp_path):
    command = [sys.executable, "-m", MODULE, "--port", "0", "--state", str(tmp_path / "state")]
    command += ["--allowed-origins", '["https://a.example"]', "--uvicorn-log-level", "error"]
    command += ["--allowed-methods", '["*"]', "--response-role", "assistant", "--prompt-template", "auto"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        url = server.stdout.readline().split()[3].rstrip(",")
        with urllib.request.urlopen(f"{url}/health") as answer:
            assert answer.status == 200 and answer.read() == b""
        with urllib.request.urlopen(f"{url}/version") as answer:
            assert json.load(answer)["version"]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
