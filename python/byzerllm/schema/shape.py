"""What a program wants an answer to be: a pydantic class, any other type that pydantic knows, or a JSON Schema."""

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from byzerllm.errors import InvalidRequestError
from byzerllm.schema import enforceable, pydantic_here
from byzerllm.schema.enforceable import Schema


class Shape:
    """A response class: its schema, and how an answer becomes its value."""

    def __init__(self, described: Schema) -> None:
        self.described = described
        """The JSON Schema as the class gives it, for prompts."""

    @staticmethod
    def of(kind: Any) -> "Shape":
        """The shape of a response class; worked out once for each."""
        if isinstance(kind, (str, Mapping)):
            return _Free(kind)
        try:
            return _of_type(kind)
        except TypeError:
            return _made(kind)

    def enforced(self, plain: bool = False) -> Schema:
        """The schema that decoding enforces."""
        return enforceable.enforceable(self.described, plain)

    def value(self, data: Any) -> Any:
        """The object that an answer's JSON stands for. Raises `ValueError` with what is wrong."""
        raise NotImplementedError


class _Free(Shape):
    """A JSON Schema without a class: the value is the answer's JSON."""

    def __init__(self, schema: str | Mapping[str, Any]) -> None:
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise InvalidRequestError(
                    f"response_class as text must be a JSON Schema: {error}", param="response_class"
                ) from None
        if not isinstance(schema, Mapping):
            raise InvalidRequestError("response_class as JSON must be an object", param="response_class")
        super().__init__(dict(schema))

    def value(self, data: Any) -> Any:
        return data


class _Typed(Shape):
    """A pydantic 2 class, a dataclass, a `List[…]`, an `Enum`, …"""

    def __init__(self, kind: Any) -> None:
        try:
            self._adapter = pydantic_here.pydantic().TypeAdapter(kind)
            described = pydantic_here.schema_of(kind)
        except pydantic_here.errors() as error:
            raise InvalidRequestError(
                f"response_class {kind!r} is no class that pydantic knows: {str(error).splitlines()[0]}",
                param="response_class",
            ) from None
        super().__init__(described)

    def value(self, data: Any) -> Any:
        try:
            return self._adapter.validate_json(json.dumps(data, ensure_ascii=False))
        except ValueError as error:
            raise ValueError(pydantic_here.said(error)) from None


class _First(Shape):
    """A class of pydantic's first version (`pydantic.v1`), or one that works like it."""

    def __init__(self, kind: Any) -> None:
        super().__init__(dict(kind.schema()))
        self._kind = kind

    def value(self, data: Any) -> Any:
        return self._kind.parse_obj(data)


@lru_cache(maxsize=128)
def _of_type(kind: Any) -> Shape:
    return _made(kind)


def _made(kind: Any) -> Shape:
    if inspect.isroutine(kind):
        raise InvalidRequestError(
            f"response_class must be a class or a type, got the function {kind!r}", param="response_class"
        )
    if hasattr(kind, "parse_obj") and not hasattr(kind, "model_validate"):
        return _First(kind)
    return _Typed(kind)
