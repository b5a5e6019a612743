"""The gateway beside nginx and LiteLLM's proxy, in front of one upstream that answers at once.

The proxy has core 0 for itself; client and upstream share core 1. Contenders take turns; every number is the median of the
turns, and a run with errors ends the measurement. See README.md in this folder.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Set

from common import ROOT, Problem, Step, cache_directory, commit, machine, markdown_table, median, number, write_json
from engines import free_port

LITELLM = "litellm[proxy]==1.80.5"
PROXY_CORE, CLIENT_CORE = "0", "1"
MESSAGE = "What is the capital of France?"
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measures what is asked for."""
    arguments = parse_arguments()
    try:
        result = measure(arguments)
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        return 130
    stem = arguments.out or cache_directory() / "results" / time.strftime("gateway-%Y%m%d-%H%M%S", time.gmtime())
    write_json(stem.with_suffix(".json"), result)
    text = markdown(result)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "byzerllm")
    parser.add_argument("--load", type=Path, default=ROOT / "target" / "release" / "examples" / "gateway_load")
    parser.add_argument("--nginx", default=shutil.which("nginx"), help="nginx's program; PATH by default")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=int, default=10, help="length of each run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--streams", type=int, default=16, help="streams at once, for the time of an event")
    parser.add_argument("--every", type=int, default=2000, help="microseconds between two events of a stream")
    parser.add_argument("--only", default="peak,latency,stream,burst,idle", help="parts: peak, latency, stream, burst, idle, soak")
    parser.add_argument("--soak", type=int, default=600, help="seconds of the soak")
    parser.add_argument("--without", default="", help="contenders to leave out: nginx, litellm")
    parser.add_argument("--out", type=Path, help="where to write, without suffix")
    arguments = parser.parse_args()
    arguments.parts = set(arguments.only.split(","))
    arguments.left_out = set(arguments.without.split(","))
    if unknown := arguments.parts - {"peak", "latency", "stream", "burst", "idle", "soak"}:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return arguments


class Proxy:
    """A running contender."""

    def __init__(self, name: str, port: int, key: str, pids: Callable[[], List[int]]) -> None:
        self.name, self.port, self.key, self.pids = name, port, key, pids

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total


def pinned(core: str) -> List[str]:
    """Keeps a program on one core."""
    return ["taskset", "--cpu-list", core]


def family(pid: int) -> List[int]:
    """A process and its children."""
    found = [pid]
    for parent in found:
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in listed.read_text().split()]
    return found


@contextmanager
def running(command: Sequence[object], log: Path, environment: Optional[Dict[str, str]] = None) -> Iterator[subprocess.Popen]:
    """A program that is ended with the block."""
    with log.open("ab") as output:
        started = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output, env={**os.environ, **(environment or {})})
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def body(model: str, streamed: bool) -> dict:
    """A request."""
    found = {"model": model, "messages": [{"role": "user", "content": MESSAGE}], "temperature": 0, "max_tokens": 100}
    return {**found, "stream": True, "stream_options": {"include_usage": True}} if streamed else found


def wait_until_ready(proxy: Proxy, model: str, started: subprocess.Popen, log: Path, limit: float = 120) -> None:
    """Waits until it answers one request rightly."""
    began = time.monotonic()
    failure: object = None
    while time.monotonic() - began < limit and started.poll() is None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{proxy.port}/v1/chat/completions",
            json.dumps(body(model, False)).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {proxy.key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                if "Paris" in json.load(answer)["choices"][0]["message"]["content"]:
                    return
        except OSError as error:
            failure = error
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise Problem(f"{proxy.name} does not answer ({failure}):\n{tail}", "Run it by hand.")


@contextmanager
def direct(port: int) -> Iterator[Proxy]:
    """No proxy at all."""
    yield Proxy("upstream alone", port, "none", list)


@contextmanager
def nginx(program: str, upstream: int, scratch: Path) -> Iterator[Proxy]:
    """nginx as a plain reverse proxy with kept connections: the floor."""
    port = free_port()
    config = scratch / "nginx.conf"
    config.write_text(
        f"""worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/nginx-error.log; daemon off; user root;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f;
  uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s; keepalive_requests 100000000;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
}}
"""
    )
    log = scratch / "nginx.log"
    with running([*pinned(PROXY_CORE), program, "-c", config, "-p", scratch], log) as started:
        proxy = Proxy("nginx", port, "none", lambda: family(started.pid))
        wait_until_ready(proxy, "static", started, log)
        yield proxy


@contextmanager
def litellm(upstream: int, scratch: Path, step: Step) -> Iterator[Proxy]:
    """LiteLLM's proxy with one worker."""
    venv = cache_directory() / "litellm-venv"
    if not (venv / "bin" / "litellm").is_file():
        step.update(f"installing {LITELLM}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", LITELLM], check=True)
    port = free_port()
    config = scratch / "litellm.yaml"
    config.write_text(
        f"""model_list:
  - model_name: static
    litellm_params: {{model: openai/static, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{num_retries: 0}}
"""
    )
    log = scratch / "litellm.log"
    command = [*pinned(PROXY_CORE), venv / "bin" / "litellm", "--config", config, "--port", port, "--num_workers", 1]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with running(command, log, environment) as started:
        proxy = Proxy("LiteLLM", port, "sk-bench", lambda: family(started.pid))
        wait_until_ready(proxy, "static", started, log)
        yield proxy


@contextmanager
def byzerllm(binary: Path, upstream: int, scratch: Path) -> Iterator[Proxy]:
    """This gateway with a key, a price and budgets, so that authorisation, ledger and metrics do their work."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = Path(tempfile.mkdtemp(dir=scratch))
    environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "UPSTREAM_KEY": "sk-upstream-0123456789"}
    (folder / "run").mkdir(mode=0o700)
    log = folder / "log"

    def call(*words: object) -> str:
        done = subprocess.run(
            [str(binary), *map(str, words)], env={**os.environ, **environment}, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Problem(f"`byzerllm {' '.join(map(str, words))}` failed: {done.stderr.strip()}", "Run it by hand.")
        return done.stdout

    state = folder / "state"
    command = [*pinned(PROXY_CORE), binary, "serve", "--port", port, "--state", state, "--threads", 1]
    with running(command, log, environment) as started:
        record = folder / "run" / "byzerllm" / f"server-{port}.json"
        began = time.monotonic()
        while not record.is_file():
            if time.monotonic() - began > 30 or started.poll() is not None:
                raise Problem("byzerllm serve did not start", f"Look into {log}.")
            time.sleep(0.02)
        settings = [f"saas.base_url=http://127.0.0.1:{upstream}/v1", "saas.api_key=env:UPSTREAM_KEY", "saas.model=static"]
        sets = [word for setting in settings for word in ("--set", setting)]
        call("deploy", "--name", "static", "--type", "saas/openai", *sets, "--url", url)
        price = ["--vendor", "openai", "--model", "static", "--currency", "USD", "--input", "0.15", "--output", "0.6"]
        call("prices", "set", *price, "--url", url)
        limit = ["--limit", "1000000 USD", "--period", "month", "--url", url]
        call("budgets", "set", "--deployment", "static", *limit)
        key = json.loads(call("keys", "create", "--name", "bench", "--scope", "inference:*", "--json", "--url", url))["key"]
        call("budgets", "set", "--key", "bench", *limit)
        proxy = Proxy("byzerllm", port, key, lambda: family(started.pid))
        wait_until_ready(proxy, "static", started, log)
        yield proxy


class Client:
    """The measuring client on its core."""

    def __init__(self, program: Path, scratch: Path) -> None:
        self.program, self.scratch = program, scratch

    def command(self, part: str, proxy: Proxy, streamed: bool, **options: object) -> List[str]:
        """How it is called."""
        file = self.scratch / f"body-{streamed}.json"
        file.write_text(json.dumps(body("static", streamed), separators=(",", ":")))
        words: List[object] = [*pinned(CLIENT_CORE), self.program, part, "--port", proxy.port, "--key", proxy.key, "--body", file]
        for name, value in options.items():
            words += [f"--{name}", value]
        return list(map(str, words))

    def run(self, part: str, proxy: Proxy, streamed: bool = False, **options: object) -> Dict[str, float]:
        """One run; errors end the measurement."""
        cpu = proxy.cpu_seconds()
        done = subprocess.run(self.command(part, proxy, streamed, **options), capture_output=True, text=True)
        if done.returncode != 0:
            raise Problem(f"the client failed at {proxy.name}: {done.stderr.strip()[-500:]}", "Run it by hand.")
        found = json.loads(done.stdout)
        if found["errors"]:
            raise Problem(f"{proxy.name} failed {found['errors']} requests", "A run with errors is no measurement.")
        used = proxy.cpu_seconds() - cpu
        # The first tenth warms up: its work is in the processor time but not in the count.
        found["per_cpu_second"] = found["count"] / 0.9 / used if used else 0.0
        return found


def measure(arguments: argparse.Namespace) -> dict:
    """Everything."""
    for program, fix in [
        (arguments.binary, "cargo build --release -p byzerllm-cli"),
        (arguments.load, "cargo build --release -p byzerllm-simulator --example gateway_load"),
    ]:
        if not program.is_file():
            raise Problem(f"{program} is missing", f"Build it: {fix}")
    if "nginx" not in arguments.left_out and not arguments.nginx:
        raise Problem("nginx was not found", "Install it (apt-get install nginx), pass --nginx, or --without nginx.")
    result: dict = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "repeat": arguments.repeat,
        "seconds": arguments.seconds,
        "connections": arguments.connections,
        "streams": arguments.streams,
        "every": arguments.every,
        "contenders": {},
    }
    with tempfile.TemporaryDirectory(prefix="byzerllm-gateway-") as folder:
        scratch = Path(folder)
        for name in "bpfus":
            (scratch / name).mkdir()
        client = Client(arguments.load, scratch)
        if "soak" in arguments.parts:
            with upstream(arguments.load, scratch) as port, byzerllm(arguments.binary, port, scratch) as own:
                result["soak"] = soak(client, own, arguments.soak)
        values: Dict[str, Dict[str, List[float]]] = {}
        for together, parts in ((0, {"peak", "latency", "stream"}), (1, {"burst"})):
            if wanted := parts & arguments.parts:
                with upstream(arguments.load, scratch, every=arguments.every, together=together) as port:
                    compare(arguments, client, wanted, port, scratch, values)
        result["contenders"] = {
            name: {key: median(taken) for key, taken in found.items()} for name, found in values.items()
        }
        result["values"] = values
        if "idle" in arguments.parts:
            with upstream(arguments.load, scratch, events=0) as port, byzerllm(arguments.binary, port, scratch) as own:
                result["idle"] = idle(client, own)
    return result


@contextmanager
def nginx_or_none(arguments: argparse.Namespace, port: int, scratch: Path) -> Iterator[Optional[Proxy]]:
    """nginx, unless it is left out."""
    if "nginx" in arguments.left_out:
        yield None
        return
    with nginx(arguments.nginx, port, scratch) as proxy:
        yield proxy


@contextmanager
def upstream(program: Path, scratch: Path, **options: int) -> Iterator[int]:
    """The upstream on the client's core."""
    port = free_port()
    command = [*pinned(CLIENT_CORE), program, "upstream", "--port", port]
    for name, value in options.items():
        command += [f"--{name}", value]
    with running(command, scratch / "upstream.log"):
        time.sleep(0.3)
        yield port


def keep(values: Dict[str, Dict[str, List[float]]], name: str, part: str, found: Dict[str, float]) -> None:
    """Adds one run."""
    for key, value in found.items():
        values.setdefault(name, {}).setdefault(f"{part}_{key}", []).append(value)


def compare(
    arguments: argparse.Namespace,
    client: Client,
    parts: Set[str],
    port: int,
    scratch: Path,
    values: Dict[str, Dict[str, List[float]]],
) -> None:
    """Everything that is measured beside other proxies."""
    with direct(port) as alone, nginx_or_none(arguments, port, scratch) as floor:
        with byzerllm(arguments.binary, port, scratch) as own:
            take_turns(arguments, client, parts, [proxy for proxy in (alone, floor, own) if proxy], values)
    if "litellm" not in arguments.left_out and "peak" in parts:
        with Step("LiteLLM") as step, litellm(port, scratch, step) as slow:
            for turn in range(arguments.repeat):
                step.update(f"peak, {turn + 1}/{arguments.repeat}")
                keep(values, slow.name, "peak", client.run("load", slow, seconds=arguments.seconds, connections=8))


def take_turns(
    arguments: argparse.Namespace,
    client: Client,
    parts: Set[str],
    contenders: List[Proxy],
    values: Dict[str, Dict[str, List[float]]],
) -> None:
    """Peak rate, then latency at half of the slower one's peak, then streams; contenders take turns."""

    def turns(part: str, what: str, **options: object) -> None:
        with Step(part) as step:
            for turn in range(arguments.repeat):
                shift = turn % len(contenders)
                for proxy in [*contenders[shift:], *contenders[:shift]]:
                    step.update(f"{turn + 1}/{arguments.repeat}, {proxy.name}")
                    found = client.run(what, proxy, streamed=what == "streams", seconds=arguments.seconds, **options)
                    keep(values, proxy.name, part, found)

    if {"peak", "latency"} & parts:
        turns("peak", "load", connections=arguments.connections)
    if "latency" in parts:
        proxies = [proxy.name for proxy in contenders if proxy.name != "upstream alone"]
        rate = int(min(median(values[name]["peak_per_second"]) for name in proxies) / 2)
        turns("latency", "load", connections=arguments.connections, rate=rate)
    for part in sorted({"stream", "burst"} & parts):
        turns(part, "streams", connections=arguments.streams)


def idle(client: Client, proxy: Proxy) -> Dict[str, float]:
    """Memory of five thousand streams that wait."""
    before = proxy.memory()
    command = client.command("hold", proxy, True, connections=5000, seconds=10)
    with Step("5,000 idle streams"):
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert started.stdout
        found = json.loads(started.stdout.readline())
        time.sleep(3)
        held = proxy.memory()
        started.wait()
    return {**found, "before_bytes": before, "held_bytes": held}


def soak(client: Client, proxy: Proxy, seconds: int) -> dict:
    """Memory under a steady load."""
    command = client.command("load", proxy, False, connections=32, seconds=seconds, rate=2000)
    samples: List[List[float]] = []
    with Step(f"soak, {seconds} s") as step:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        began = time.monotonic()
        while started.poll() is None:
            samples.append([round(time.monotonic() - began, 1), proxy.memory()])
            step.update(f"{samples[-1][1] / (1 << 20):.1f} MiB")
            time.sleep(min(5.0, seconds / 20))
        assert started.stdout
        found = json.loads(started.stdout.readline())
    return {**found, "samples": samples}


def markdown(result: dict) -> str:
    """The tables for people."""
    facts = result["machine"]
    lines = [
        f"# byzerllm {result['commit']} as a gateway",
        "",
        f"{result['date']}, {facts['processor']}, {facts['cores']} cores; the proxy on core {PROXY_CORE}, client and upstream on "
        f"core {CLIENT_CORE}; {result['connections']} connections, {result['seconds']} s a run, medians of {result['repeat']} turns.",
        "",
    ]
    columns = [
        ("peak_per_second", "peak, requests/s"),
        ("peak_per_cpu_second", "per CPU-second, at the peak"),
        ("latency_per_cpu_second", "per CPU-second, at half rate"),
        ("latency_p50_us", "p50 at half rate, µs"),
        ("latency_p99_us", "p99 at half rate, µs"),
        ("stream_p50_us", "event under way, p50, µs"),
        ("burst_p50_us", "events that tick together, p50, µs"),
    ]
    rows = [
        [name, *(number(found.get(key)) for key, _ in columns)] for name, found in result["contenders"].items()
    ]
    if rows:
        lines += [markdown_table(["", *(words for _, words in columns)], rows), ""]
    if found := result.get("idle"):
        lines.append(
            f"- {found['count']} idle streams: {found['held_bytes'] / 1e6:.0f} MB resident, {found['before_bytes'] / 1e6:.0f} MB before."
        )
    if found := result.get("soak"):
        memory = [sample[1] for sample in found["samples"]]
        tenth = max(1, len(memory) // 10)
        lines.append(
            f"- soak: {found['count']} requests, {median(memory[tenth : 2 * tenth] or memory) / 1e6:.1f} MB in its second tenth, "
            f"{median(memory[-tenth:]) / 1e6:.1f} MB in its last."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
