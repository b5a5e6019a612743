"""Functions as models see them: `serialize_function_to_json` of Byzer-LLM, and what a docstring says of arguments."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from byzerllm.utils.text import get_type_name, is_annotated_type


def name_of(function: Callable[..., Any]) -> str:
    """The name under which a model calls a function."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, with what `Annotated` adds. One that cannot be resolved is `Any`."""
    target = function
    while hasattr(target, "func") and not inspect.isroutine(target):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 - whatever evaluating strangers' annotations raises
        plain = getattr(inspect.unwrap(target), "__annotations__", {})
        return {name: Any if isinstance(hint, str) else hint for name, hint in plain.items()}


def annotation_of(hint: Any) -> tuple[Any, dict[str, Any], list[Any]]:
    """The type within `Annotated`, Byzer-LLM's notes in it (`description`, `enum`), and the other notes."""
    if not is_annotated_type(hint):
        return hint, {}, []
    known: dict[str, Any] = {}
    others = []
    for note in hint.__metadata__:
        if isinstance(note, str):
            known["description"] = note
        elif isinstance(note, Mapping):
            known.update({key: note[key] for key in ("description", "enum") if key in note})
        else:
            others.append(note)
    return hint.__origin__, known, others


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a caller may name, without `self`, `*args` and `**kwargs`."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in signature.parameters.values() if parameter.kind not in collecting]


def serialize_function_to_json(func: Callable[..., Any] | str) -> str:
    """A function as JSON: its name, docstring and parameters with Python's names of their types.

    Descriptions and enumerations come from `Annotated[int, "how many"]` and
    `Annotated[str, "unit", {"enum": ["day", "week"]}]`. A string is returned as it is.

    Example:
        >>> def add(a: int, b: int = 1) -> int: "Adds."
        >>> json.loads(serialize_function_to_json(add))["parameters"]["properties"]["b"]
        {'type': 'int', 'description': '', 'default': 1}
    """
    import json

    if isinstance(func, str):
        return func
    hints = hints_of(func)
    properties: dict[str, Any] = {}
    for parameter in parameters_of(func):
        kind, known, _ = annotation_of(hints.get(parameter.name, type(None)))
        entry: dict[str, Any] = {"enum": list(known["enum"])} if "enum" in known else {}
        entry["type"] = get_type_name(kind)
        entry["description"] = known.get("description", "")
        if parameter.default is not inspect.Parameter.empty:
            entry["default"] = parameter.default
        properties[parameter.name] = entry
    described = {
        "name": name_of(func),
        "description": func.__doc__,
        "parameters": {"type": "object", "properties": properties},
    }
    return json.dumps(described, ensure_ascii=False, indent=2, default=str)


_SECTION = re.compile(r"^(?:Args|Arguments|Parameters|Params|参数)\s*[:：]\s*$")
_OTHER_SECTION = re.compile(r"^[A-Z][A-Za-z ]*:\s*$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*[:：]\s*(.*)$")
_SPHINX = re.compile(r"^[:@]param\s+(?:[^:]*?\s)?(\w+)\s*:\s*(.*)$")


def described_parameters(docstring: str | None) -> dict[str, str]:
    """What a docstring says of each argument, in Google's or Sphinx's style."""
    found: dict[str, str] = {}
    current, within, indent = None, False, 0
    for line in inspect.cleandoc(docstring or "").splitlines():
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        sphinx = _SPHINX.match(text)
        google = _GOOGLE.match(text) if within and (current is None or depth <= indent) else None
        if sphinx:
            current, indent = sphinx[1], depth
            found[current] = sphinx[2]
        elif _SECTION.match(text):
            within, current = True, None
        elif not text or text.startswith((":", "@")) or (_OTHER_SECTION.match(text) and depth == 0):
            within, current = within and not text, None
        elif google and depth > 0:
            current, indent = google[1], depth
            found[current] = google[2]
        elif current is not None and depth > indent:
            found[current] = f"{found[current]} {text}".strip()
        elif depth == 0:
            within, current = False, None
    return found
