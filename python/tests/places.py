"""Places whose answers are written down: one inside the process, one behind HTTP."""

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.utils.client import ByzerLLM

INFO = {
    "architectures": ["LlamaForCausalLM"],
    "engine": "byzerllm",
    "context_length": 8192,
    "chat_template": True,
}


def response(answer):
    """What the endpoint gives: `answer` is a text, or a dictionary with more of a choice."""
    choice = {
        "text": "",
        "reasoning": "",
        "tool_calls": [],
        "logprobs": None,
        "finish_reason": {"reason": "stop"},
    }
    choice.update({"text": answer} if isinstance(answer, str) else answer)
    return {
        "request_id": "r1",
        "choices": [choice],
        "notices": choice.pop("notices", []),
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        "timing": {"first_token_ms": 10.0, "total_ms": 500.0},
    }


class Place:
    """Stands for the native endpoint. Gives its answers in turn, the last one for ever."""

    embedded = True
    url = None

    def __init__(self, *answers, refuses=()):
        self.answers = list(answers)
        self.refuses = refuses
        self.requests = []
        self.info = INFO

    def model(self, name):
        return {"info": self.info, "labels": {}, "created": 1}

    def chat(self, request, timeout=None):
        for field in self.refuses:
            if request.get(field):
                raise refusal(field)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Call(response(answer))

    def answer_later(self, request, timeout=None):
        return self.chat(request, timeout).result()

    model_later = model


class Call:
    """A finished call."""

    def __init__(self, found):
        self.found = found

    def result(self):
        return self.found

    def cancel(self):
        pass


def refusal(field):
    """What an engine says to what it cannot do, and to a schema that it cannot enforce."""
    if field == "schema":
        return InvalidRequestError("the answer's format cannot be enforced", param="response_format")
    return UnsupportedError("not here", param="tools" if field == "tools" else "response_format")


def answering(*answers, refuses=()):
    """A client over a place, as its default model `chat`."""
    client = ByzerLLM()
    client._connected = Place(*answers, refuses=refuses)
    return client.setup_default_model_name("chat")


def run_later(monkeypatch):
    """Lets the async methods work over a `Place`."""

    async def run(start, *arguments):
        await asyncio.sleep(0)
        return start(*arguments)

    monkeypatch.setattr("byzerllm.event_loop.run", run)


@contextmanager
def server(*answers, refuses=("tools", "format")):
    """A server on HTTP whose model answers what is written down and cannot do `refuses`; gives URL and requests."""
    remaining, requests = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(200, json.dumps({"name": "chat", "info": INFO | MORE, "labels": {}, "created": 1}))

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = [name for name in refuses if request.get(name) not in (None, [], {"kind": "text"})]
            if asked:
                detail = {"kind": "unsupported", "message": "not here"}
                detail["param"] = "tools" if asked[0] == "tools" else "response_format"
                self._send(400, json.dumps({"detail": detail}))
                return
            requests.append(request)
            events = [
                {"event": "started", "request_id": "r1"},
                {"event": "text", "choice": 0, "text": remaining.pop(0)},
                {"event": "finished", "choice": 0, "reason": "stop"},
                {"event": "usage", "prompt_tokens": 10, "completion_tokens": 5},
            ]
            frames = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            self._send(200, frames, "text/event-stream")

        def _send(self, status, body, kind="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{found.server_address[1]}", requests
    finally:
        found.shutdown()
        found.server_close()
        thread.join()


MORE = {"weight_bytes": 1, "compute": "elsewhere"}
