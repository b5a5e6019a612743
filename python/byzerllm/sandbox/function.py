"""A function whose code runs in a sandbox."""

from dataclasses import dataclass, field
from typing import Any

from byzerllm.sandbox.settings import SandboxSettings


@dataclass(frozen=True)
class SandboxedFunction:
    """Calls run the code in its warm child, anew each time. Arguments and result cross the border as JSON.

    Raises:
        SandboxError: the code raised or died.
        SandboxTimeoutError, SandboxMemoryError: it took more than its settings allow.
        SandboxUnavailableError: this system has no sandbox.

    Example:
        >>> double = SandboxedFunction("def double(x): return 2 * x", "double")
        >>> double(21)
        42
    """

    source: str
    """The code, a Python module."""
    name: str
    """The function in it."""
    settings: SandboxSettings = field(default_factory=SandboxSettings)
    """Limits of its process."""
    without: tuple[str, ...] = ()
    """Layers treated as missing. For tests of what happens then."""

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.run(arguments, keywords)[0]

    def run(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, str]:
        """The result, and what was printed on the way.

        Args:
            arguments: by position.
            keywords: by name.

        Raises:
            What a call raises, see the class.

        Example:
            >>> double.run((21,), {})
            (42, '')
        """
        from byzerllm.sandbox.pool import POOL

        return POOL.call((self.source, self.settings, self.without), self.name, arguments, keywords)

    def load(self) -> list[str]:
        """Loads the code and returns the names of its functions.

        Raises:
            What a call raises, see the class.

        Example:
            >>> double.load()
            ['double']
        """
        from byzerllm.sandbox.pool import POOL

        return POOL.functions((self.source, self.settings, self.without))

    def layers(self) -> dict[str, Any]:
        """What is around the code: `file_layer`, `scratch` (its directory for files) and what is `missing`,
        and why.

        Raises:
            SandboxUnavailableError: this system has no sandbox.

        Example:
            >>> double.layers()["missing"]
        """
        from byzerllm.sandbox.pool import POOL

        return POOL.report((self.source, self.settings, self.without))
