"""The engines that are compared: each measures the same things through its own programs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import load
import parse
from common import Problem, cache_directory, run
from llama_cpp import BOUND

CONTEXT = 1024  # of the quality measurement
PROMPT = 512
DECODE = 64
STREAM_PROMPT = 32


@dataclass
class Server:
    """A server process and where it listens."""

    process: subprocess.Popen
    address: Tuple[str, int]
    model: str
    began: float

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def peak_memory(self) -> int:
        """The most memory it held so far, in bytes."""
        return parse.status_bytes(Path(f"/proc/{self.process.pid}/status").read_text(), "VmHWM")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def process(command: Sequence[object], log: Path, environment: Dict[str, str]) -> Iterator[subprocess.Popen]:
    """A program that is ended with the block."""
    with log.open("ab") as output:
        started = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, env=environment)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(15)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def pinned(threads: int) -> List[str]:
    """Keeps a program on as many cores as it has threads: the first ones that this process may use."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


class Byzerllm:
    """This project's release binary in one compute mode."""

    peer = False

    def __init__(self, binary: Path, model: Path, compute: str, environment: Dict[str, str]) -> None:
        self.binary, self.model, self.compute, self.environment = binary, model, compute, environment
        self.name = f"byzerllm {compute}"
        self.kernels: Optional[str] = None
        self.rooflines: List[dict] = []

    def _bench(self, threads: int, *options: object) -> dict:
        command = [*pinned(threads), self.binary, "bench", "--model", self.model, "--compute", self.compute]
        report = json.loads(run([*command, "--threads", threads, "--repeat", 1, "--json", *options], self.environment))
        self.kernels = report.get("kernels")
        if "roofline" in report:
            self.rooflines.append(report["roofline"])
        return report

    def single(self, threads: int) -> Dict[str, float]:
        """Prefill and one stream, in tokens per second."""
        report = self._bench(
            threads, "--prompt-tokens", PROMPT, "--decode-prompt-tokens", 1, "--decode-tokens", DECODE, "--streams", 1
        )
        return {
            "prefill": report["prefill_tokens_per_second"],
            "decode": report["decode"][0]["tokens_per_second"],
        }

    def streams(self, threads: int, counts: Sequence[int]) -> Dict[int, float]:
        """Tokens per second of several streams together."""
        listed = ",".join(map(str, counts))
        options = ("--prompt-tokens", 32, "--decode-prompt-tokens", STREAM_PROMPT, "--decode-tokens", DECODE)
        report = self._bench(threads, *options, "--streams", listed)
        return {entry["streams"]: entry["tokens_per_second"] for entry in report["decode"]}

    @contextmanager
    def serve(self, threads: int, slots: int, context: int) -> Iterator[Server]:
        """A server with the model deployed. It is started twice: once to deploy, then as it would be after a boot."""
        del slots, context  # both follow from the requests
        scratch = Path(tempfile.mkdtemp(prefix="byzerllm-bench-"))
        environment = {**os.environ, **self.environment, "XDG_RUNTIME_DIR": str(scratch / "runtime")}
        environment.pop("BYZERLLM_API_KEY", None)
        (scratch / "runtime").mkdir(mode=0o700)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [*pinned(threads), self.binary, "serve", "--port", port, "--threads", threads]
        command += ["--state", scratch / "state"]
        try:
            with process(command, scratch / "log", environment) as first:
                deploy = [self.binary, "deploy", "--name", "chat", "--model", self.model, "--url", url]
                deploy += ["--compute", self.compute]
                _wait_for(scratch / "runtime" / "byzerllm" / f"server-{port}.json", first)
                done = subprocess.run(list(map(str, deploy)), env=environment, capture_output=True, text=True)
                if done.returncode != 0:
                    raise Problem(f"the model could not be deployed: {done.stderr.strip()}", "Run it by hand.")
            began = time.perf_counter()
            with process(command, scratch / "log", environment) as second:
                yield Server(second, ("127.0.0.1", port), "chat", began)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def quality(self, text: Path, core: int) -> Dict[str, object]:
        """The report of `bench --perplexity`: every compute mode at once, on one core."""
        command = ["taskset", "--cpu-list", core, self.binary, "bench", "--model", self.model, "--threads", 1]
        return json.loads(run([*command, "--context", CONTEXT, "--perplexity", text, "--json"], self.environment))


class LlamaCpp:
    """llama.cpp with one quantization of the model."""

    peer = True

    def __init__(self, folder: Path, model: Path, kind: str) -> None:
        self.folder, self.model, self.kind = folder, model, kind
        self.name = f"llama.cpp {kind}"
        self.kernels: Optional[str] = None
        self.rooflines: List[dict] = []  # it has none

    def _run(self, threads: int, program: str, *options: object) -> str:
        command = [*pinned(threads), self.folder / program, "-m", self.model, "-t", threads, *options]
        return run(command, BOUND)

    def single(self, threads: int) -> Dict[str, float]:
        """Prefill and one stream, in tokens per second."""
        return parse.llama_bench(
            self._run(threads, "llama-bench", "-p", PROMPT, "-n", DECODE, "-r", 1, "-o", "json")
        )

    def streams(self, threads: int, counts: Sequence[int]) -> Dict[int, float]:
        """Tokens per second of several streams together."""
        context = max(counts) * 128
        options = ("-npp", STREAM_PROMPT, "-ntg", DECODE, "-npl", ",".join(map(str, counts)))
        text = self._run(
            threads, "llama-batched-bench", "-c", context, *options, "-tb", threads, "--output-format", "jsonl"
        )
        return parse.batched_bench(text)

    @contextmanager
    def serve(self, threads: int, slots: int, context: int) -> Iterator[Server]:
        """llama-server with so many slots of so many tokens."""
        port = free_port()
        log = Path(tempfile.mkstemp(prefix="llama-server-", suffix=".log")[1])
        command = [*pinned(threads), self.folder / "llama-server", "-m", self.model, "--host", "127.0.0.1"]
        command += ["--port", port, "-t", threads, "-tb", threads, "-np", slots, "-c", slots * context]
        # Copies of idle slots in memory and a trial run at the start only cost here.
        command += ["--cache-ram", 0, "--no-warmup"]
        began = time.perf_counter()
        try:
            with process(command, log, {**os.environ, **BOUND}) as started:
                yield Server(started, ("127.0.0.1", port), "chat", began)
        finally:
            log.unlink(missing_ok=True)

    def quality(self, text: Path, core: int) -> Dict[str, object]:
        """Perplexity of a text, with one thread. In each window the tokens of its second half are scored."""
        del core  # one thread finds a free one by itself
        command = [self.folder / "llama-perplexity", "-m", self.model, "-t", 1, "-f", text, "-c", CONTEXT]
        log = cache_directory() / "quality" / f"{self.model.stem}-{text.stem}.log"  # to watch, for it takes long
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            done = subprocess.run(list(map(str, command)), stdout=output, stderr=output)
        said = log.read_text(encoding="utf-8", errors="replace")
        if done.returncode != 0:
            raise Problem(f"llama-perplexity ended with {done.returncode}", f"Its output is in {log}.")
        windows = parse.windows(said)
        return {
            "perplexity": parse.perplexity(said),
            "windows": windows,
            "tokens": windows * (CONTEXT - 1 - CONTEXT // 2),
        }


def _wait_for(file: Path, started: subprocess.Popen, limit: float = 60) -> None:
    """Waits for the file that the server writes once it can be administered."""
    began = time.monotonic()
    while time.monotonic() - began < limit and started.poll() is None:
        if file.is_file():
            return
        time.sleep(0.01)
    raise Problem("byzerllm serve did not start", "Run it by hand.")


def http_load(engine, threads: int, shape: load.Shape, source: str, seed: int) -> Dict[str, float]:
    """A load on a fresh server, and the server's peak memory."""
    longest = shape.prompt_tokens[1] + shape.new_tokens[1] + 96
    with engine.serve(threads, shape.clients, longest) as server:
        body = load.requests(load.Shape(requests=1), server.model, source, seed + 1_000_000)[0]
        load.until_first_token(server.address, {**body, "max_tokens": 8}, server.began, server.alive)
        bodies = load.requests(shape, server.model, source, seed)
        found = load.drive(server.address, bodies, shape.clients)
        return {**found, "peak_memory_bytes": server.peak_memory()}


def start_and_chat(engine, threads: int, source: str, seed: int) -> Dict[str, float]:
    """The time from the start of the process to a first token, then two turns of a chat on that server."""
    with engine.serve(threads, 1, 4096) as server:
        body = {"model": server.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        started = load.until_first_token(
            server.address, {**body, "temperature": 0}, server.began, server.alive
        )
        turns = load.second_turn(server.address, server.model, source, seed)
        return {"start_ms": started * 1000, **turns}
