"""Small helpers about text."""

import re
from typing import Any, get_origin

from byzerllm.errors import InvalidRequestError


def print_flush(*args: Any, **kwargs: Any) -> None:
    """`print` that is seen at once.

    Args:
        args, kwargs: those of `print`.

    Example:
        >>> print_flush("Hello")
        Hello
    """
    print(*args, **{**kwargs, "flush": True})


def random_uuid() -> str:
    """A random name of 32 hexadecimal digits.

    Example:
        >>> len(random_uuid())
        32
    """
    import uuid

    return uuid.uuid4().hex


def generate_str_md5(s: str) -> str:
    """The MD5 sum of a text as hexadecimal digits; a name for it, not a protection.

    Args:
        s: the text.

    Example:
        >>> generate_str_md5("Hello")
        '8b1a9953c4611296a827abf8c47804d7'
    """
    import hashlib

    return hashlib.md5(s.encode("utf-8"), usedforsecurity=False).hexdigest()


def generate_file_md5(file_path: str) -> str:
    """The MD5 sum of a file as hexadecimal digits, read piece by piece.

    Args:
        file_path: the file.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> generate_file_md5(os.devnull)
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    import hashlib

    digest = hashlib.md5(usedforsecurity=False)
    with open(file_path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def load_json_str(json_str: str) -> Any:
    """The value of JSON that is a whole text or stands in its last fenced block.

    Args:
        json_str: the text.

    Raises:
        InvalidRequestError: there is none.

    Example:
        >>> load_json_str('{"city": "Paris"}')["city"]
        'Paris'
    """
    import json

    fenced = re.findall(r"```(?:json)?[ \t]*\n(.*?)```", json_str, re.DOTALL)
    for candidate in (json_str, *fenced[-1:]):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    shown = json_str if len(json_str) <= 80 else f"{json_str[:80]}…"
    raise InvalidRequestError(f"there is no JSON in {shown!r}", param="json_str")


def get_type_name(t: Any) -> str:
    """How the signature of a tool writes a type: `int`, `list[str]`, `Optional`.

    Args:
        t: the type.

    Example:
        >>> get_type_name(int), get_type_name(list[str])
        ('int', 'list[str]')
    """
    if not isinstance(t, type) or get_origin(t) is not None:
        written = str(t)
        if "list" in written or "dict" in written:
            return written
    return str(getattr(t, "__name__", t))


def is_annotated_type(hint: Any) -> bool:
    """Whether a type hint is `Annotated[…]`.

    Args:
        hint: the hint.

    Example:
        >>> is_annotated_type(str)
        False
    """
    return hasattr(hint, "__metadata__")
