"""What a call of `chat_oai` costs the client, beside the `openai` package on the same server.

    python bench/overhead.py [CALLS]

The model is a tiny checkpoint of the tests that answers with one token, so nearly all of the time is that of the way to it.
What is left after the engine's own time (embedded) or after the same request over a bare HTTP connection (loopback) is
what the client itself costs: the settings, the request, the answer and its metadata, validation of everything.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

try:
    from byzerllm.utils.client import ByzerLLM
    from openai import OpenAI
except ImportError as problem:
    sys.exit(f"{problem}; run this with the Python that has byzerllm and openai, for example .byzerllm/venv-test/bin/python")

MODEL = Path(__file__).resolve().parent.parent / "crates" / "model" / "tests" / "fixtures" / "qwen2-bf16"
MESSAGES = [{"role": "user", "content": "hello"}]
CONFIG = {"temperature": 0, "max_length": 1}
GOALS = {"embedded": 100.0, "loopback": 400.0}
WARM_UP = 50


def timed(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def embedded(calls: int) -> List[float]:
    """What each call costs beside the engine's own time, with the model in this process."""
    llm = ByzerLLM().setup_default_model_name("tiny")
    llm.deploy(str(MODEL), udf_name="tiny")
    costs = []
    for index in range(WARM_UP + calls):
        began = time.perf_counter()
        [answer] = llm.chat_oai(MESSAGES, llm_config=CONFIG)
        whole = (time.perf_counter() - began) * 1e6
        if index >= WARM_UP:
            costs.append(whole - answer.metadata["time_cost"] * 1e3)
    llm.undeploy("tiny", force=True)
    return costs


def serving(directory: str) -> Tuple["subprocess.Popen[str]", str]:
    """A server with the model; its process and its URL."""
    command = [sys.executable, "-m", "byzerllm", "serve", "--port", "0", "--state", f"{directory}/state"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.startswith("byzerllm serves on http://"):
        sys.exit(f"the server did not start: {line!r}")
    return server, line.split()[3].rstrip(",")


def bare(address: str, path: str, body: Dict[str, object]) -> Callable[[], object]:
    """The same request over a kept connection, without any client."""
    connection = http.client.HTTPConnection(address)
    data, headers = json.dumps(body), {"Content-Type": "application/json"}

    def call() -> bytes:
        connection.request("POST", path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{path} answered {answer.status}: {text[:300]!r}")
        return text

    return call


def loopback(calls: int) -> Dict[str, List[float]]:
    """Times of each kind of call against one server, in turns so that all see the same machine."""
    with tempfile.TemporaryDirectory(prefix="byzerllm-overhead-") as directory:
        server, url = serving(directory)
        try:
            llm = ByzerLLM(url=url).setup_default_model_name("tiny")
            llm.deploy(str(MODEL), udf_name="tiny")
            openai = OpenAI(base_url=f"{url}/v1", api_key="any")
            address = url.removeprefix("http://")
            native = {
                "model": "tiny",
                "input": {"kind": "messages", "value": [{**MESSAGES[0], "extra": {}}]},
                "sampling": {"temperature": 0, "max_tokens": 1},
                "front_end": "legacy",
            }
            theirs = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 1}
            kinds: Dict[str, Callable[[], object]] = {
                "byzerllm": lambda: llm.chat_oai(MESSAGES, llm_config=CONFIG),
                "byzerllm, bare": bare(address, "/byzerllm/v1/chat", native),
                "openai": lambda: openai.chat.completions.create(**theirs),
                "openai, bare": bare(address, "/v1/chat/completions", theirs),
            }
            times: Dict[str, List[float]] = {kind: [] for kind in kinds}
            for index in range(WARM_UP + calls):
                for kind, call in kinds.items():
                    taken = timed(call)
                    if index >= WARM_UP:
                        times[kind].append(taken)
            return times
        finally:
            server.terminate()
            server.wait()


def main(calls: int) -> int:
    """Measures, prints a table and says whether the goals are met."""
    with tempfile.TemporaryDirectory(prefix="byzerllm-runtime-") as runtime:
        # No server of the user's is found, and none of theirs sees this one.
        os.chmod(runtime, 0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        os.environ.pop("BYZERLLM_URL", None)
        here = statistics.median(embedded(calls))
        found = {kind: statistics.median(times) for kind, times in loopback(calls).items()}
    ours = found["byzerllm"] - found["byzerllm, bare"]
    theirs = found["openai"] - found["openai, bare"]
    print(f"{calls} calls of each kind, medians in microseconds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':26}{'whole':>9}{'without client':>16}{'client':>9}")
    print(f"{'byzerllm, embedded':26}{'':>9}{'':>16}{here:9.0f}")
    for name, client in (("byzerllm", ours), ("openai", theirs)):
        print(f"{name + ', loopback':26}{found[name]:9.0f}{found[name + ', bare']:16.0f}{client:9.0f}")
    met = here < GOALS["embedded"] and ours < GOALS["loopback"]
    print(f"the goals, {GOALS['embedded']:.0f} embedded and {GOALS['loopback']:.0f} over loopback, are {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
