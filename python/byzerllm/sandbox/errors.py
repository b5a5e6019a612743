"""What can go wrong around generated code."""

from typing import Any

from byzerllm.errors import ByzerLLMError, UnsupportedError


class SandboxError(ByzerLLMError):
    """Generated code failed: it raised, died, or broke the rules of the border.

    Args:
        message: what happened.
        child_traceback: the traceback inside the sandbox, when the code raised.
        rest: as in `ByzerLLMError`.

    Example:
        >>> try:
        ...     double("a", "b")
        ... except SandboxError as error:
        ...     print(error.child_traceback)
    """

    kind = "sandbox"
    code = "sandbox"

    def __init__(self, message: str = "", *, child_traceback: str = "", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.child_traceback = child_traceback
        """The traceback inside the sandbox, when the code raised."""

    def __str__(self) -> str:
        inside = self.child_traceback.strip()
        return f"{self.message}\n\nInside the sandbox:\n{inside}" if inside else self.message


class SandboxTimeoutError(SandboxError, TimeoutError):
    """Generated code took longer than it may; its process was ended."""

    kind = "sandbox_timeout"
    code = "sandbox_timeout"


class SandboxMemoryError(SandboxError, MemoryError):
    """Generated code asked for more memory than it may have."""

    kind = "sandbox_memory"
    code = "sandbox_memory"


class SandboxUnavailableError(UnsupportedError):
    """There is no sandbox on this system; the message says why. `sandbox="none"` runs code without one."""

    kind = "sandbox_unavailable"
    code = "sandbox_unavailable"
