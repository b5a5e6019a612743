"""The form in which values cross the border: JSON, and an object with `$type` for what JSON does not have.

`{"$type": "datetime", "value": "2024-01-28T10:00:00+08:00"}`. Types: `datetime`, `date` and `time` (ISO 8601),
`timedelta` (`[days, seconds, microseconds]`), `decimal` and `uuid` (text), `bytes` (base64), `complex`
(`[real, imaginary]`), `tuple`, `set` and `frozenset` (a list), `dict` (a list of pairs, for keys that are no text). An
enum's member is its value; objects of pydantic and dataclasses are dictionaries; a path is text. A time zone
arrives as its offset. Nothing is looked up by name, so a value can be no other thing than these.
"""

import base64
import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from os import PathLike, fspath
from typing import Any
from uuid import UUID

TYPE = "$type"


class ValueFormatError(ValueError):
    """A value that has no form, or a form that is no value."""


_PLAIN = (str, int, float, bool, type(None))

_ENCODERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    bytearray: ("bytes", lambda value: base64.b64encode(value).decode()),
    complex: ("complex", lambda value: [value.real, value.imag]),
    tuple: ("tuple", lambda value: [encode(item) for item in value]),
    set: ("set", lambda value: [encode(item) for item in value]),
    frozenset: ("frozenset", lambda value: [encode(item) for item in value]),
}


def _interval(days: int, seconds: int, microseconds: int) -> timedelta:
    return timedelta(days, seconds, microseconds)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda value: _interval(*map(int, value)),
    "decimal": Decimal,
    "uuid": UUID,
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "complex": lambda value: complex(*map(float, value)),
    "tuple": lambda value: tuple(map(decode, value)),
    "set": lambda value: set(map(decode, value)),
    "frozenset": lambda value: frozenset(map(decode, value)),
    "dict": lambda value: {decode(key): decode(item) for key, item in value},
}


def encode(value: Any) -> Any:
    """The JSON form of a value."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [encode(item) for item in value]
    if kind is dict:
        return _dictionary(value)
    if kind in _ENCODERS:
        name, encoder = _ENCODERS[kind]
        return {TYPE: name, "value": encoder(value)}
    return _relative(value)


def _dictionary(value: dict[Any, Any]) -> Any:
    if TYPE not in value and all(type(key) is str for key in value):
        return {key: encode(item) for key, item in value.items()}
    return {TYPE: "dict", "value": [[encode(key), encode(item)] for key, item in value.items()]}


def _relative(value: Any) -> Any:
    """A value of a class that is made of a known one."""
    if isinstance(value, enum.Enum):
        return encode(value.value)
    if not isinstance(value, type):
        for dump in ("model_dump", "dict"):  # pydantic 2 and 1
            if hasattr(type(value), dump) and hasattr(type(value), "parse_obj"):
                return encode(getattr(value, dump)())
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None:
            return {name: encode(getattr(value, name)) for name in fields}
    for simple in (str, int, float):
        if isinstance(value, simple):
            return simple(value)
    if isinstance(value, list):
        return encode(list(value))
    if isinstance(value, dict):
        return _dictionary(dict(value.items()))
    for base in _ENCODERS:
        if isinstance(value, base):
            return encode(_plain(base, value))
    if isinstance(value, PathLike):
        return fspath(value)
    raise ValueFormatError(f"a value of type {type(value).__qualname__} cannot cross the sandbox's border")


def _plain(base: Any, value: Any) -> Any:
    """The value without its own class, which may differ from its base in what it shows."""
    if base in (datetime, date, time):
        return base.fromisoformat(base.isoformat(value))
    if base is timedelta:
        return timedelta(value.days, value.seconds, value.microseconds)
    return base(value)


def decode(value: Any) -> Any:
    """The value of a JSON form."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TYPE not in value:
        return {key: decode(item) for key, item in value.items()}
    decoder = _DECODERS.get(value[TYPE]) if isinstance(value[TYPE], str) else None
    if decoder is None or set(value) != {TYPE, "value"}:
        raise ValueFormatError(f"no value has the form {str(value)[:100]}")
    try:
        return decoder(value["value"])
    except ValueFormatError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueFormatError(f"no {value[TYPE]} has the form {str(value)[:100]}: {error}") from None
