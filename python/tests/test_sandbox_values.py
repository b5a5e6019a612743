"""What crosses the sandbox's border arrives as what it was; nothing else does."""

import collections
import dataclasses
import enum
import json
import pathlib
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pydantic
import pytest

from byzerllm.sandbox import SandboxedFunction
from byzerllm.sandbox.values import ValueFormatError, decode, encode

VALUES = [
    None,
    True,
    -(10**30),
    1.5,
    float("inf"),
    "text 文字 \ud800",
    [1, [2]],
    {"a": {"b": None}},
    {"$type": "datetime", "value": "no"},
    {1: "a", (1, 2): "b", None: "c"},
    datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=8))),
    date(2024, 2, 29),
    time(1, 2, 3),
    timedelta(days=-1, microseconds=3),
    Decimal("0.10"),
    UUID(int=1),
    b"\x00\xff",
    (1, (2,), []),
    {1, 2},
    frozenset({"a"}),
    complex(1, -2),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_values_arrive_as_they_were(value):
    arrived = decode(json.loads(json.dumps(encode(value))))
    assert arrived == value and type(arrived) is type(value)


def test_all_of_them_through_a_child():
    function = SandboxedFunction("def f(*values, **named):\n    return list(values), named\n", "f")
    assert function(*VALUES, key={3}) == (VALUES, {"key": {3}})


class Colour(enum.Enum):
    RED = "red"


class Kind(str, enum.Enum):
    SMALL = "small"


@dataclasses.dataclass
class Point:
    x: int
    when: date


class Model(pydantic.BaseModel):
    name: str
    colour: Colour
    inner: list[Point] = []


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Colour.RED, "red"),
        (Kind.SMALL, "small"),
        (Point(1, date(2024, 1, 1)), {"x": 1, "when": date(2024, 1, 1)}),
        (Model(name="a", colour=Colour.RED), {"name": "a", "colour": "red", "inner": []}),
        (Pair(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (bytearray(b"x"), b"x"),
    ],
)
def test_relatives_arrive_as_plain_values(value, arrives):
    arrived = decode(encode(value))
    assert arrived == arrives and type(arrived) is type(arrives)


@pytest.mark.parametrize("value", [object(), print, Colour, iter([]), {"a": object()}])
def test_others_do_not_cross(value):
    with pytest.raises(ValueFormatError, match="cannot cross"):
        encode(value)


@pytest.mark.parametrize(
    "form",
    [
        {"$type": "os.system", "value": "true"},
        {"$type": ["datetime"], "value": "2024-01-01"},
        {"$type": "datetime"},
        {"$type": "datetime", "value": "2024-01-01", "more": 1},
        {"$type": "datetime", "value": 3},
        {"$type": "timedelta", "value": [1, 2, 3, 4]},
        {"$type": "timedelta", "value": [10**30, 0, 0]},
        {"$type": "decimal", "value": "x"},
        {"$type": "bytes", "value": "?"},
        {"$type": "set", "value": [[1]]},
        {"$type": "dict", "value": [1]},
        {"$type": "uuid", "value": None},
    ],
    ids=str,
)
def test_made_up_forms_are_refused(form):
    with pytest.raises(ValueFormatError):
        decode(form)
