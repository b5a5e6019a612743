"""What byzerllm needs of pydantic, which is imported by the first call that needs it."""

import json
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

from byzerllm.errors import UnsupportedError
from byzerllm.schema.enforceable import Schema

_MOST_SAID = 5


def pydantic() -> ModuleType:
    """The package, or an error that says how to get it."""
    try:
        import pydantic
    except ImportError:
        raise UnsupportedError(
            "tools and response classes need pydantic 2, which was not installed with byzerllm; run "
            "pip install 'pydantic>=2.5'"
        ) from None
    if not pydantic.VERSION.startswith("2."):
        raise UnsupportedError(
            f"tools and response classes need pydantic 2, this is {pydantic.VERSION}; pip install -U pydantic"
        )
    return pydantic


def annotated(kind: Any, notes: Sequence[Any]) -> Any:
    """`Annotated[kind, *notes]`."""
    for note in notes:
        kind = Annotated[kind, note]
    return kind


def limited(kind: Any, choices: Sequence[Any] | None) -> Any:
    """A type of which only these values are allowed; of a list, its items."""
    if not choices:
        return kind
    if get_origin(kind) in (list, set, tuple, frozenset, Sequence):
        inner = get_args(kind)
        return get_origin(kind)[limited(inner[0] if inner else Any, choices)]
    if all(isinstance(choice, (str, int, bool)) for choice in choices):
        chosen: Any = Literal[tuple(choices)]
        return chosen | None if type(None) in get_args(kind) else chosen
    from pydantic import AfterValidator, Field

    def allowed(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}")
        return value

    return Annotated[kind, AfterValidator(allowed), Field(json_schema_extra={"enum": list(choices)})]


@lru_cache(maxsize=1)
def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """A schema for every type: what JSON cannot describe may be anything, and is checked later."""

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
            return {}

        def decimal_schema(self, schema: Any) -> Schema:
            """A number: the other form, text, need not hold one."""
            described: Schema = super().decimal_schema(schema)
            return next(
                (part for part in described.get("anyOf", ()) if part.get("type") == "number"), described
            )

        def dict_schema(self, schema: Any) -> Schema:
            """Names that are whole numbers; pydantic says nothing of them."""
            described: Schema = super().dict_schema(schema)
            if schema.get("keys_schema", {}).get("type") == "int":
                described.setdefault("propertyNames", {"pattern": "^(?:0|[1-9][0-9]{0,8})$"})
            return described

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Defaults that JSON cannot hold are left out; nobody needs to hear of it."""

    return Generator


def schema_of(kind: Any) -> Schema:
    """The JSON Schema of what a type is made from."""
    schema: Schema = pydantic().TypeAdapter(kind).json_schema(schema_generator=_generator())
    return schema


def said(error: ValueError) -> str:
    """A validation error in one line, for people and models."""
    if not hasattr(error, "errors"):
        return str(error)
    try:
        problems = error.errors(include_url=False)
    except TypeError:
        problems = error.errors()
    lines = []
    for problem in problems[:_MOST_SAID]:
        place = ".".join(str(step) for step in problem["loc"])
        lines.append(
            f"{place}: {problem['msg']}{_input(problem)}" if place else f"{problem['msg']}{_input(problem)}"
        )
    if len(problems) > _MOST_SAID:
        lines.append(f"and {len(problems) - _MOST_SAID} more")
    return "; ".join(lines)


def _input(problem: dict[str, Any]) -> str:
    """What was wrong, where it is short."""
    if problem.get("type") == "missing" or "input" not in problem:
        return ""
    try:
        shown = json.dumps(problem["input"], ensure_ascii=False)
    except (TypeError, ValueError):
        return ""
    return f", got {shown}" if len(shown) <= 60 else ""


def errors() -> tuple[type[Exception], ...]:
    """What pydantic raises for types that it does not know."""
    module = pydantic()
    return (module.errors.PydanticUserError, module.errors.PydanticUndefinedAnnotation, TypeError)
