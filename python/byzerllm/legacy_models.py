"""Functions of `import byzerllm` that modules of models used: reading parameters, blocks of files, a log."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from byzerllm.errors import InvalidRequestError
from byzerllm.parameters import boolean, integer, number


@dataclass
class BlockRow:
    """A piece of a file that travels as rows."""

    start: int
    offset: int
    value: bytes


def _decoded(key: str, value: Any, kind: type) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidRequestError(f"{key} must be JSON: {error}", param=key) from None
    if not isinstance(value, kind):
        raise InvalidRequestError(f"{key} must be a {kind.__name__}, got {value!r}", param=key)
    return value


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "float": number,
    "int": integer,
    "bool": boolean,
    "list": lambda key, value: _decoded(key, value, list),
    "dict": lambda key, value: _decoded(key, value, dict),
}


def parse_params(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The parameters `<prefix>.<type>.<name>`, by name, with values of that type.

    Types are `float`, `int`, `bool`, `str`, `list` and `dict`, the last two as JSON; the value of another type stays
    as it is.
    """
    found = {}
    for key, value in params.items():
        parts = key.split(".")
        if len(parts) >= 3 and parts[0] == prefix:
            read = _READERS.get(parts[1])
            found[parts[2]] = value if read is None else read(key, value)
    return found


def check_param_exists(params: Mapping[str, Any], name: str) -> None:
    """Raises when a parameter is missing."""
    if name not in params:
        raise InvalidRequestError(f"{name} is required", param=name)


def log_to_file(msg: str, file_path: str) -> None:
    """Adds a line to a file."""
    with open(file_path, "a", encoding="utf-8") as file:
        file.write(f"{msg}\n")
