"""Calls of the package `openai` that are tried again."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from byzerllm.errors import InvalidRequestError
from byzerllm.utils import openai_utils

openai = pytest.importorskip("openai")

ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}


@pytest.fixture
def vendor(monkeypatch):
    """A vendor that answers with these statuses, one after the other."""
    statuses: list[int] = []
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.path)
            status = statuses.pop(0)
            body = json.dumps(ANSWER if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setattr(openai, "base_url", f"{url}/")
    monkeypatch.setattr(openai, "api_key", "key")
    monkeypatch.setattr(openai, "max_retries", 0)
    monkeypatch.setattr(openai, "_client", None, raising=False)
    monkeypatch.setattr(openai_utils, "_FIRST_PAUSE_SECONDS", 0.0)
    yield statuses, seen
    server.shutdown()
    server.server_close()


ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_busy_vendor_is_asked_again(vendor):
    statuses, seen = vendor
    statuses += [429, 500, 200]
    answer = openai_utils.completion_with_retry(True, 3, **ASK)
    assert answer.choices[0].message.content == "hi" and seen == ["/v1/chat/completions"] * 3
    statuses += [503, 503]
    with pytest.raises(openai.InternalServerError):
        openai_utils.completion_with_retry(True, 2, **ASK)
    statuses += [400, 200]
    with pytest.raises(openai.BadRequestError):
        openai_utils.completion_with_retry(True, 3, **ASK)
    with pytest.raises(InvalidRequestError, match="max_retries"):
        openai_utils.completion_with_retry(True, 0, **ASK)


def test_event_loops_ask_again_too(vendor):
    statuses, seen = vendor
    statuses += [200]
    answer = asyncio.run(openai_utils.async_completion_with_retry(True, 1, **ASK))
    assert answer.choices[0].message.content == "hi" and len(seen) == 1
    assert openai_utils.get_completion_endpoint(False) is not openai_utils.get_completion_endpoint(True)
