"""The empty function that a model is to write: its arguments, its result, and what identifies it."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from byzerllm.errors import InvalidRequestError
from byzerllm.formats import schema_text
from byzerllm.schema.signature import serialize_function_to_json


def digest(value: Any) -> str:
    """A checksum of plain data."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Stub:
    """A function without a body, whose result is a pydantic class."""

    def __init__(self, func: Callable[..., Any], names: Mapping[str, Any] | None = None) -> None:
        self.func = func
        self.name = func.__name__
        self.full_name = f"{func.__module__}.{func.__name__}"
        self.signature = inspect.signature(func)
        self.response_class = _response_class(func, names or {})

    def bind(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with the defaults filled in, by name where names may be used."""
        bound = self.signature.bind(*arguments, **keywords)
        bound.apply_defaults()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if all(parameter.kind in by_name for parameter in self.signature.parameters.values()):
            return (), dict(bound.arguments)
        return bound.args, bound.kwargs

    def described(self) -> str:
        """The signature on one line, for people."""
        return f"{self.name}{self.signature}"

    def request(self, instruction: str | None) -> str:
        """A checksum of everything that a model is told."""
        return digest(
            [serialize_function_to_json(self.func), schema_text(self.response_class), instruction or ""]
        )


def _response_class(func: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """The class in the return annotation; `names` are those around the function."""
    found = func.__annotations__.get("return")
    if isinstance(found, str):
        try:
            found = get_type_hints(func, localns=dict(names)).get("return")
        except Exception as error:  # whatever evaluating strangers' annotations raises
            raise InvalidRequestError(
                f"the return annotation of {func.__name__} cannot be resolved: {error}", param="func"
            ) from None
    if not isinstance(found, type) or not hasattr(found, "parse_obj"):
        raise InvalidRequestError(
            f"impl function should return a pydantic model; annotate {func.__name__} with one", param="func"
        )
    return found
