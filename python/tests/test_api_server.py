"""The server under the import path of Byzer-LLM."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from byzerllm.utils.client.entrypoints.openai.api_server import serve_arguments

MODULE = "byzerllm.utils.client.entrypoints.openai.api_server"


def test_flags_become_those_of_serve():
    assert serve_arguments([], {}) == ["serve", "--port", "8000"]
    given = ["--host", "127.0.0.1", "--port", "0", "--ssl-keyfile", "k.pem", "--ssl-certfile", "c.pem"]
    given += [
        "--allowed-origins",
        '["https://a.example", "https://b.example"]',
        "--uvicorn-log-level",
        "debug",
    ]
    given += ["--allowed-methods", '["*"]', "--response-role", "assistant", "--prompt-template", "auto"]
    assert serve_arguments([*given, "--state", "s"], {}) == [
        *["serve", "--port", "0", "--host", "127.0.0.1", "--ssl-keyfile", "k.pem", "--ssl-certfile", "c.pem"],
        *[
            "--allow-origin",
            "https://a.example",
            "--allow-origin",
            "https://b.example",
            "-vv",
            "--state",
            "s",
        ],
    ]


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
        (["--uvicorn-log-level", "critical"], "--uvicorn-log-level"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(given, reason, capsys):
    with pytest.raises(SystemExit) as caught:
        serve_arguments(given, {})
    assert caught.value.code == 2 and reason in capsys.readouterr().err


def test_a_key_in_the_environment_is_never_ignored(capsys):
    with pytest.raises(SystemExit):
        serve_arguments([], {"BYZERLLM_API_KEY": "secret"})
    errors = capsys.readouterr().err
    assert "BYZERLLM_API_KEY" in errors and "secret" not in errors


def test_the_module_serves(tmp_path):
    command = [sys.executable, "-m", MODULE, "--port", "0", "--state", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        url = server.stdout.readline().split()[3].rstrip(",")
        with urllib.request.urlopen(f"{url}/health") as answer:
            assert answer.status == 200 and answer.read() == b""
        with urllib.request.urlopen(f"{url}/version") as answer:
            assert json.load(answer)["version"]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
