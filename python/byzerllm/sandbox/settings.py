"""What generated code may use."""

from dataclasses import dataclass

from byzerllm.errors import InvalidRequestError
from byzerllm.parameters import integer, number

MEBIBYTE = 1 << 20
_DAY = 86_400

DEFAULT_MODULES = tuple(
    (
        "abc array base64 binascii bisect calendar cmath collections colorsys contextlib copy csv dataclasses datetime "
        "dateutil decimal difflib enum fractions functools hashlib heapq hmac html io itertools json keyword locale math "
        "numbers operator pprint pydantic pytz random re secrets statistics string struct textwrap time traceback types "
        "typing typing_extensions unicodedata urllib.parse uuid warnings zlib zoneinfo __future__"
    ).split()
)
"""Modules that generated code may import unless you say otherwise; those that are not installed are skipped."""


@dataclass(frozen=True)
class SandboxSettings:
    """Limits of the process that runs generated code: seconds and bytes.

    Raises:
        InvalidRequestError: a limit is out of range.

    Example:
        >>> llm.setup_sandbox(SandboxSettings(time_limit=3, memory_bytes=256 << 20, scratch_bytes=0))
    """

    time_limit: float = 10.0
    """Seconds that loading the code, or one call, may take."""
    memory_bytes: int = 512 * MEBIBYTE
    """Bytes of memory on top of what the interpreter itself takes."""
    output_bytes: int = 1 * MEBIBYTE
    """Bytes of a result as JSON. Of what the code prints, an eighth of this is kept and the rest dropped."""
    scratch_bytes: int = 16 * MEBIBYTE
    """Bytes of files that the code may write into a directory in memory, its own; 0 for none. Systems without user
    namespaces give it no directory at all."""
    allowed_modules: tuple[str, ...] | None = DEFAULT_MODULES
    """Modules that the code may import, with those inside them; `None` for any. This keeps code simple, no more: the
    sandbox holds without it."""

    def __post_init__(self) -> None:
        if not 0 < number("time_limit", self.time_limit) <= _DAY:
            raise InvalidRequestError(
                f"time_limit must be above 0 and at most a day, got {self.time_limit!r}", param="time_limit"
            )
        for name, least in (("memory_bytes", 1), ("output_bytes", 1), ("scratch_bytes", 0)):
            value = integer(name, getattr(self, name))
            if value < least:
                raise InvalidRequestError(f"{name} must be at least {least}, got {value}", param=name)
            object.__setattr__(self, name, value)
        if isinstance(self.allowed_modules, str):
            raise InvalidRequestError(
                "allowed_modules must be a list of names, or None for any", param="allowed_modules"
            )
        if self.allowed_modules is not None:
            object.__setattr__(self, "allowed_modules", tuple(self.allowed_modules))
