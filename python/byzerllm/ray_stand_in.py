"""What `import ray` gives to programs under `byzerllm run`: Ray, where it is installed and a cluster answers, and a
stand-in elsewhere.

Programs of Byzer-LLM call `ray.init` before anything else. Our deployments need no cluster, so the stand-in has `init`,
`is_initialized` and `shutdown`, and everything else of Ray raises `UnsupportedError` when it is used. Nothing named `ray` is
installed: a finder makes the module in the running process.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any, NoReturn, cast

from byzerllm.absent import Absent
from byzerllm.errors import ByzerLLMError, UnsupportedError
from byzerllm.notices import say_once
from byzerllm.parameters import boolean

_PATIENCE_SECONDS = 1.0

# What programs may say to `init` without asking for anything.
_QUIET = (
    "log_to_driver",
    "configure_logging",
    "logging_level",
    "logging_format",
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
)


class _NotRay(Absent):
    """A part of Ray that the stand-in does not have."""

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(
            f"{self.__module__}.{self.__name__} needs a Ray cluster, and none answers; byzerllm's stand-in for Ray has "
            "init, is_initialized and shutdown: install ray and start a cluster, or leave this out",
            param=self.__name__,
        )


class Context:
    """What `init` returns."""

    dashboard_url = ""

    def __init__(self, address: str, namespace: str) -> None:
        self.address_info = {"address": address, "namespace": namespace, "node_id": "byzerllm"}

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __enter__(self) -> "Context":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """The same as `shutdown`."""
        shutdown()


class _State:
    initialized = False


def init(
    address: str | None = None,
    *,
    namespace: str | None = None,
    ignore_reinit_error: bool = False,
    **options: Any,
) -> Any:
    """Says that byzerllm's engine does the work. Where a cluster answers at the address, Ray itself takes over."""
    ray = answering(address)
    if ray is not None:
        given = {"address": address, "namespace": namespace, "ignore_reinit_error": ignore_reinit_error}
        return ray.init(**given, **options)
    if _State.initialized and not ignore_reinit_error:
        raise RuntimeError(
            "ray.init() was called twice; call it once, or with ignore_reinit_error=True, or call ray.shutdown() before"
        )
    asked = ", ".join(
        f"{name}={value!r}" for name, value in options.items() if name not in _QUIET and value is not None
    )
    if asked and boolean("BYZERLLM_STRICT", os.environ.get("BYZERLLM_STRICT", "")):
        raise UnsupportedError(
            f"strict: ray.init({asked}) has no effect without a Ray cluster; leave it out, or do not ask for strict",
            param="strict",
        )
    say_once(
        "ray: no cluster answers, and none is needed: byzerllm's own engine runs the models"
        + (f"; without effect: {asked}" if asked else "")
    )
    _State.initialized = True
    return Context(address or "local", namespace or "default")


def is_initialized() -> bool:
    """Whether `init` was called, and `shutdown` not since."""
    return _State.initialized


def shutdown(*arguments: Any, **options: Any) -> None:
    """Takes `init` back. Deployments stay."""
    _State.initialized = False


def answering(address: str | None = "auto") -> Any:
    """Ray itself, where it is installed and a cluster answers at the address; else `None`."""
    current = sys.modules.get("ray")
    if current is not None and not isinstance(current, _StandIn):
        return current
    finder = next((one for one in sys.meta_path if isinstance(one, Finder)), None)
    if not _answers(address) or _installed() is None:
        return None
    if finder is not None:
        finder.gone = True
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]
    ray = importlib.import_module("ray")
    if current is not None:
        # The program has imported the stand-in; under its name there is Ray from now on.
        current.__dict__.update(ray.__dict__)
    return ray


def _answers(address: str | None) -> bool:
    """Whether somebody listens where a cluster's head should."""
    if address in (None, "auto"):
        address = os.environ.get("RAY_ADDRESS") or _current_cluster()
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return False
    import socket

    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_SECONDS).close()
    except (OSError, OverflowError):
        return False
    return True


def _current_cluster() -> str:
    """The address that `ray start` left for programs of this machine."""
    try:
        with open(os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _installed() -> ModuleSpec | None:
    """Where Ray itself would come from."""
    for finder in sys.meta_path:
        if not isinstance(finder, Finder):
            spec = finder.find_spec("ray", None)
            if spec is not None:
                return spec
    return None


class _StandIn(ModuleType):
    """`ray`, and every module below it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _NotRay(self.__name__, name)


class Finder:
    """Makes the stand-in when somebody imports `ray`: a finder and a loader, without the slow import of their bases."""

    gone = False
    """Ray itself is in use."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The stand-in, unless there is a cluster."""
        if self.gone or not (fullname == "ray" or fullname.startswith("ray.")):
            return None
        if fullname == "ray" and _answers("auto") and _installed() is not None:
            self.gone = True
            return None
        return ModuleSpec(fullname, cast(Any, self), origin="byzerllm's stand-in for Ray", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module."""
        return _StandIn(spec.name, __doc__)

    def exec_module(self, module: ModuleType) -> None:
        """Fills it."""
        if module.__name__ == "ray":
            module.__dict__.update(init=init, is_initialized=is_initialized, shutdown=shutdown)
            importlib.import_module("ray.exceptions")
        elif module.__name__ == "ray.exceptions":
            # What a worker raised came as this.
            module.__dict__.update(RayError=ByzerLLMError, RayTaskError=ByzerLLMError)


def install() -> None:
    """From now on, `import ray` may give the stand-in."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
