"""An OpenAI-compatible vendor on a port of this machine: it answers with what a test gives it, and remembers requests."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Vendor:
    """`answers` are texts, dictionaries (whole bodies) or pairs of a status and a text; the last one repeats."""

    def __init__(self, *answers):
        self.answers = list(answers) or ["hello"]
        self.requests = []
        self.headers = []
        self.gone = threading.Event()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                vendor.requests.append({"path": self.path, **body})
                vendor.headers.append(dict(self.headers))
                answer = vendor.answers.pop(0) if len(vendor.answers) > 1 else vendor.answers[0]
                if isinstance(answer, tuple):
                    self.send(answer[0], answer[1].encode(), **dict(answer[2:]))
                elif isinstance(answer, dict):
                    self.send(200, json.dumps(answer).encode())
                elif self.path.endswith("/embeddings"):
                    rows = [
                        {"index": index, "embedding": [float(len(text)), 1.0]}
                        for index, text in enumerate(body["input"])
                    ]
                    self.send(200, json.dumps({"data": rows[::-1]}).encode())
                elif body.get("stream"):
                    self.stream(answer)
                else:
                    self.send(200, json.dumps(whole(answer, body["model"])).encode())

            def send(self, status, content, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self, text):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    self.event({"choices": [{"delta": {"role": "assistant", "reasoning_content": "hm"}}]})
                    for piece in text if isinstance(text, list) else list(text):
                        self.event({"choices": [{"delta": {"content": piece}}]})
                    self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                    self.event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(text)}})
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    vendor.gone.set()

            def event(self, chunk):
                self.wfile.write(b"data: " + json.dumps({"id": "r1", **chunk}).encode() + b"\n\n")
                self.wfile.flush()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()


def whole(text, model):
    """The body of an answer that is not streamed."""
    return {
        "id": "r1",
        "model": model,
        "choices": [
            {
                "message": {"role": "assistant", "content": text, "reasoning_content": "hm"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": len(text)},
    }
