"""Messages on a pipe: four bytes with the length, then JSON."""

import json
from typing import Any

LENGTH_BYTES = 4

ROOM = 4096
"""Bytes of an answer for what is neither a result nor printed."""


def pack(message: Any) -> bytes:
    """A message's bytes."""
    data = json.dumps(message, separators=(",", ":")).encode()
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def length(header: bytes) -> int:
    """How many bytes follow a header."""
    return int.from_bytes(header, "big")


def unpack(data: bytes) -> Any:
    """The message of the bytes after the header."""
    return json.loads(data)
