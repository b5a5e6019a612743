"""The child: prepares, locks itself up, then runs the code it is sent. Started by `byzerllm.sandbox.child` only.

Descriptor 0 brings requests and 1 takes answers, until both move to 3 and 4 and the code's own standard streams lead
nowhere. What stands in this file can be called by the code it runs; nothing here is a boundary.
"""

import builtins
import contextlib
import importlib
import io
import linecache
import os
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

from byzerllm.sandbox import frames
from byzerllm.sandbox.modules import is_allowed
from byzerllm.sandbox.values import decode, encode

REQUESTS, ANSWERS = 3, 4
MODULE = "__implementation__"
FILE = "<implementation>"

# Loaded by the interpreter in the middle of ordinary work, when files may be out of reach already.
_LAZY = (
    "_strptime encodings.ascii encodings.cp1252 encodings.gb18030 encodings.gbk encodings.idna encodings.latin_1 "
    "encodings.utf_8 encodings.utf_8_sig encodings.utf_16 encodings.utf_32 encodings.unicode_escape datetime calendar locale decimal json math re random time traceback typing zoneinfo"
).split()


class Printed(io.TextIOBase):
    """What the code prints, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._parts: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._parts.append(text[: self._left])
        self._left -= len(self._parts[-1])
        return len(text)

    def text(self) -> str:
        return "".join(self._parts)


def main() -> None:
    """Serves until the parent closes the pipe."""
    os.dup2(0, REQUESTS)
    os.dup2(1, ANSWERS)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    setup = _receive()
    if setup is None:
        return
    try:
        _prepare(setup)
        from byzerllm._native import enter_sandbox

        os.dup2(null, 2)
        report = enter_sandbox(setup["policy"])
    except Exception as error:
        _send({"refused": f"{type(error).__name__}: {error}"})
        return
    if report["scratch"]:
        os.environ["TMPDIR"] = report["scratch"]
    _send({"ready": report})
    _serve(setup)


def _prepare(setup: dict[str, Any]) -> None:
    """Loads what the code will want, as long as files can be opened."""
    for name in (*_LAZY, *setup["modules"]):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # a class within a module, or one that is not installed
    if "pydantic" in sys.modules:
        _finish_pydantic(sys.modules["pydantic"])
    import time

    time.strptime("2000", "%Y")
    time.localtime()


def _finish_pydantic(pydantic: Any) -> None:
    """Loads what pydantic leaves for later: its names, and what the first class needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in getattr(pydantic, "__all__", ()):
            with contextlib.suppress(Exception):
                getattr(pydantic, name)
        pydantic.create_model("First", field=(int, 1))().model_dump_json()


def _serve(setup: dict[str, Any]) -> None:
    limit = setup["output_bytes"]
    functions: dict[str, Any] = {}
    while (request := _receive()) is not None:
        printed = Printed(setup["printed_bytes"])
        sys.stdout = sys.stderr = printed
        # The parent ends what takes too long; this is for code whose parent is gone.
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)
        try:
            if "source" in request:
                functions = _load(request["source"], setup["allowed"])
                answer: dict[str, Any] = {
                    "functions": [name for name, it in functions.items() if callable(it)]
                }
            else:
                arguments, keywords = decode(request["arguments"])
                answer = {"value": encode(functions[request["function"]](*arguments, **keywords))}
        except MemoryError:
            answer = {"error": "memory", "message": "out of memory"}
        except BaseException as error:
            answer = _failure(error, limit)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send({**answer, "id": request["id"], "printed": printed.text()}, limit)


def _load(source: str, allowed: list[str] | None) -> dict[str, Any]:
    """Runs the source as a module and returns its names."""
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    namespace = vars(module)
    namespace["__builtins__"] = {**vars(builtins), "__import__": _importer(allowed)}
    exec(compile(source, FILE, "exec"), namespace)
    return namespace


def _importer(allowed: list[str] | None) -> Callable[..., Any]:
    genuine = builtins.__import__

    def guarded(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        # Only the interpreter's own imports, as in `datetime.strptime`, come with a list.
        if level == 0 and not isinstance(fromlist, list) and not is_allowed(name, allowed):
            raise ImportError(
                f"{name} is not among the modules that generated code may import; "
                f"allow it with setup_sandbox(allowed_modules=[...])"
            )
        return genuine(name, globals, locals, fromlist, level)

    return guarded


def _failure(error: BaseException, limit: int) -> dict[str, Any]:
    inside = error.__traceback__
    while inside is not None and inside.tb_frame.f_code.co_filename == __file__:
        inside = inside.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, inside))
        message = f"{type(error).__name__}: {error}"
    except BaseException:
        text = message = type(error).__name__
    return {"error": "exception", "message": message[: limit // 4], "traceback": text[-limit // 4 :]}


def _send(message: dict[str, Any], limit: int = 1 << 20) -> None:
    try:
        data = frames.pack(message)
        size = len(data) - 6 * len(message.get("printed", ""))
        problem = (
            f"the result is larger than output_bytes allows ({limit} bytes)"
            if size > limit + frames.ROOM
            else ""
        )
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        data = frames.pack(
            {"id": message.get("id"), "error": "exception", "message": problem, "traceback": ""}
        )
    view = memoryview(data)
    while view:
        view = view[os.write(ANSWERS, view) :]


def _receive() -> Any:
    header = _exactly(frames.LENGTH_BYTES)
    return None if header is None else frames.unpack(_exactly(frames.length(header)) or b"null")


def _exactly(count: int) -> bytes | None:
    data = os.read(REQUESTS, count)
    while 0 < len(data) < count:
        more = os.read(REQUESTS, count - len(data))
        if not more:
            return None
        data += more
    return data or None
