"""The parent's side of one child."""

import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from byzerllm.sandbox import frames, modules
from byzerllm.sandbox.errors import (
    SandboxError,
    SandboxMemoryError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from byzerllm.sandbox.settings import SandboxSettings
from byzerllm.sandbox.values import ValueFormatError, decode, encode

# The child finds the modules that its parent finds, this package first of all.
_START = "import sys; sys.path[:] = sys.argv[1:]; from byzerllm.sandbox.worker import main; main()"
_PACKAGES = str(Path(__file__).resolve().parents[2])

_START_SECONDS = 60.0
_OPEN_FILES = 64
_SCRATCH_FILES = 256
# A child is replaced after so many time limits of work, before its processor time is used up.
_LIFE = 20
_FIRST_UNUSED_DESCRIPTOR = 5
# What is printed may take this part of what a result may take: JSON writes a character with up to six.
_PRINTED = 8
_MOST_SAID = 1 << 14
_INSTALL = 'or choose sandbox="none", which runs the code in this process with all its rights'


class Child:
    """A process that has loaded one source and runs its functions."""

    def __init__(self, source: str, settings: SandboxSettings, without: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._spent = 0.0
        self._requests = 0
        self._process = self._start()
        try:
            self.report = self._enter(source, settings, without)
            self.functions = self._load(source)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.poll() is None

    def call(self, function: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, str]:
        """What the function returned, and what it printed."""
        if function not in self.functions:
            names = ", ".join(self.functions) or "none"
            raise SandboxError(f"the code has no function {function}; it has {names}")
        try:
            sent = encode((arguments, keywords))
        except RecursionError:
            raise SandboxError("the arguments are nested too deeply, or hold themselves") from None
        except ValueFormatError as error:
            raise SandboxError(f"the arguments of {function}: {error}") from None
        answer = self._ask({"function": function, "arguments": sent}, function)
        try:
            value, printed = decode(answer["value"]), answer["printed"]
        except (KeyError, TypeError, ValueFormatError, RecursionError) as error:
            self._fail(SandboxError(f"{function}: the sandbox sent no value: {error}"))
        if self._spent + self._settings.time_limit > self._budget:
            self.close()
        return value, str(printed)

    def kill(self) -> None:
        """Ends the process while another thread may wait for it; that one sees the end."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Closes the pipes of a process that belongs to somebody else, or is over."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        if self._process.returncode is None:
            self._process.returncode = 0

    @property
    def _budget(self) -> float:
        return _LIFE * self._settings.time_limit

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {"LC_ALL": "C.UTF-8", "TZ": os.environ.get("TZ", ":/etc/localtime")}
        for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[pool] = "1"
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", "-c", _START, *modules.import_path(), _PACKAGES],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        except (OSError, TypeError, ValueError) as error:
            raise SandboxUnavailableError(
                f"there is no sandbox: no Python could be started ({error}); {_INSTALL}"
            ) from None
        assert process.stdin and process.stdout
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _enter(self, source: str, settings: SandboxSettings, without: tuple[str, ...]) -> dict[str, Any]:
        allowed = settings.allowed_modules
        known = SandboxSettings.allowed_modules if allowed is None else allowed
        # With any module allowed, only the usual ones are loaded outside: the code chooses the names.
        wanted = [name for name in modules.imported(source) if modules.is_allowed(name, known)]
        scratch = (
            {"bytes": settings.scratch_bytes, "files": _SCRATCH_FILES} if settings.scratch_bytes else None
        )
        policy = {
            "read": modules.readable(),
            "scratch": scratch,
            "limits": {
                "cpu_seconds": math.ceil(self._budget + _START_SECONDS),
                "memory_bytes": settings.memory_bytes,
                "open_files": _OPEN_FILES,
            },
            "first_closed_descriptor": _FIRST_UNUSED_DESCRIPTOR,
            "without": list(without),
        }
        setup = {
            "modules": sorted(wanted),
            "allowed": None if allowed is None else list(allowed),
            "output_bytes": settings.output_bytes,
            "printed_bytes": settings.output_bytes // _PRINTED,
            "policy": policy,
        }
        try:
            answer = self._exchange(setup, _START_SECONDS)
        except SandboxTimeoutError:
            raise SandboxUnavailableError(
                f"there is no sandbox: its process was not ready after {_START_SECONDS:.0f} s; {_INSTALL}"
            ) from None
        except SandboxError as error:
            raise SandboxUnavailableError(f"there is no sandbox: {error.message}; {_INSTALL}") from None
        if "ready" not in answer:
            self._fail(SandboxUnavailableError(f"there is no sandbox: {answer.get('refused')}; {_INSTALL}"))
        report: dict[str, Any] = answer["ready"]
        return report

    def _load(self, source: str) -> list[str]:
        names = self._ask({"source": source}, "loading the code").get("functions")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._fail(SandboxError("loading the code: the sandbox sent something else than an answer"))
        return names

    def _ask(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        """The answer to a request; the code's own failures are raised."""
        self._requests += 1
        limit = self._settings.time_limit
        began = time.monotonic()
        try:
            answer = self._exchange({**request, "id": self._requests, "seconds": limit}, limit)
        except SandboxTimeoutError:
            raise SandboxTimeoutError(
                f"{what} took longer than {limit:g} s; a longer time_limit can be set with setup_sandbox"
            ) from None
        self._spent += time.monotonic() - began
        if not isinstance(answer, dict) or answer.get("id") != self._requests:
            self._fail(SandboxError(f"{what}: the sandbox sent something else than an answer"))
        error = answer.get("error")
        if error == "memory":
            self._fail(
                SandboxMemoryError(
                    f"{what} needs more than {self._settings.memory_bytes} bytes of memory; "
                    "a larger memory_bytes can be set with setup_sandbox"
                )
            )
        if error is not None:
            raise SandboxError(
                f"{what}: {answer.get('message')}", child_traceback=str(answer.get("traceback"))
            )
        return answer

    def _exchange(self, message: dict[str, Any], seconds: float) -> Any:
        """Sends a message and waits for the answer; a child that does not answer well is ended."""
        if self._process.returncode is not None:
            raise SandboxError("the sandbox has ended")
        end = time.monotonic() + seconds
        try:
            self._write(frames.pack(message), end)
            size = frames.length(self._read(frames.LENGTH_BYTES, end))
            if size > 2 * self._settings.output_bytes + frames.ROOM:
                raise SandboxError(f"an answer of {size} bytes is larger than output_bytes allows")
            return frames.unpack(self._read(size, end))
        except (ValueError, RecursionError):
            self._fail(SandboxError("the sandbox sent no JSON"))
        except BaseException:
            self.close()
            raise

    def _write(self, data: bytes, end: float) -> None:
        assert self._process.stdin
        descriptor = self._process.stdin.fileno()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                self._wait(descriptor, select.POLLOUT, end)
            except BrokenPipeError:
                self._ended()

    def _read(self, count: int, end: float) -> bytes:
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        parts = []
        while count:
            try:
                part = os.read(descriptor, count)
            except BlockingIOError:
                self._wait(descriptor, select.POLLIN, end)
                continue
            if not part:
                self._ended()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait(self, descriptor: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(math.ceil(left * 1000)):
            raise SandboxTimeoutError("the time is over")

    def _ended(self) -> NoReturn:
        """Says how the process ended."""
        status = self._process.wait()
        if status in (-signal.SIGXCPU, -signal.SIGALRM):
            raise SandboxTimeoutError("the time is over")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        assert self._process.stderr
        # Only what comes before the code is written there.
        said = self._process.stderr.read(_MOST_SAID).decode(errors="replace").strip()
        raise SandboxError(f"the sandbox's process ended with {how}{': ' if said else ''}{said}")

    def _fail(self, error: Exception) -> NoReturn:
        self.close()
        raise error
