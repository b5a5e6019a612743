"""From a model's answer to a function, and from its result to an object of the response class."""

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from byzerllm.errors import ByzerLLMError
from byzerllm.implementations.source import NO_CODE, python_source
from byzerllm.sandbox import SandboxedFunction, SandboxError, SandboxSettings

Sandbox = SandboxSettings | Literal["none"]


class ImplementationError(ByzerLLMError):
    """A function could not be written, or what was written cannot be used; the message says why.

    Args:
        message: why.
        output: what the model wrote.
        rest: as in `ByzerLLMError`.

    Example:
        >>> try:
        ...     add_one_day(datetime.now())
        ... except ImplementationError as error:
        ...     print(error.output)
    """

    kind = "implementation"
    code = "implementation"

    def __init__(self, message: str = "", *, output: str = "", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.output = output
        """What the model wrote."""


@dataclass(frozen=True)
class LocalFunction:
    """A function of generated code in this very process, with all its rights: `sandbox="none"`."""

    source: str
    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)

    def __reduce__(self) -> Any:
        return (local, (self.source, self.name))


def local(source: str, name: str) -> LocalFunction:
    """Loads code into this process."""
    from byzerllm.utils import exec_capture_output

    status, said, found = exec_capture_output(source, {name: True})
    if status != 0:
        raise SandboxError(f"loading the code: {said.strip().splitlines()[-1]}", child_traceback=said)
    if name not in found:
        raise SandboxError(f"the code has no function {name}")
    return LocalFunction(source, name, found[name])


def function(source: str, name: str, sandbox: Sandbox) -> Callable[..., Any]:
    """A function of the source, for the chosen place."""
    return local(source, name) if sandbox == "none" else SandboxedFunction(source, name, sandbox)


def loaded(source: str, name: str, sandbox: Sandbox) -> Callable[..., Any]:
    """The function of the source, ready to be called. This starts its child."""
    found = function(source, name, sandbox)
    names = found.load() if isinstance(found, SandboxedFunction) else [name]
    if name not in names:
        raise SandboxError(f"the code has no function {name}; it has {', '.join(names) or 'none'}")
    return found


def written(output: Any, name: str) -> str:
    """The code in a model's answer."""
    source = python_source(output, name) if isinstance(output, str) else None
    if source is None:
        raise ImplementationError(NO_CODE, output=str(output))
    return source


def as_response(result: Any, response_class: Any) -> Any:
    """An object of the response class, made of what the function returned: a dictionary, its JSON, or an object."""
    from byzerllm.schema.shape import Shape

    if isinstance(response_class, type) and isinstance(result, response_class):
        return result
    if isinstance(result, str):
        try:
            result = json.loads(result)
        except ValueError:
            pass  # a class may be made of text
    try:
        return Shape.of(response_class).value(plain(result))
    except ValueError as error:
        raise ImplementationError(f"the function's result does not fit: {error}") from None


def plain(value: Any) -> Any:
    """The JSON data of a result. Times and the like are text in their usual form."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="replace")
    for dump in ("model_dump", "dict"):
        if hasattr(type(value), dump) and hasattr(type(value), "parse_obj"):
            return plain(getattr(value, dump)())
    return value


def reason(error: BaseException) -> str:
    """What `metadata["reason"]` says: the traceback within the code where there is one, else the message."""
    inside = getattr(error, "child_traceback", "")
    if inside:
        return str(inside)
    if isinstance(error, ByzerLLMError):
        return error.message
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
