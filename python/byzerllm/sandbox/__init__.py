"""Runs code that a model wrote in a child process that can do nothing but compute.

`SandboxedFunction` is a function of such code. Only JSON crosses the border, in the form of `byzerllm.sandbox.values`;
nothing that comes from the child is unpickled or evaluated. docs/concepts/sandbox.md says what holds and what does not.
"""

from byzerllm.sandbox.errors import (
    SandboxError,
    SandboxMemoryError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from byzerllm.sandbox.function import SandboxedFunction
from byzerllm.sandbox.settings import DEFAULT_MODULES, SandboxSettings

__all__ = [
    "DEFAULT_MODULES",
    "SandboxError",
    "SandboxMemoryError",
    "SandboxSettings",
    "SandboxTimeoutError",
    "SandboxUnavailableError",
    "SandboxedFunction",
]
