"""Filters of Jinja2 that follow Python's rules for writing, reading and cutting values."""

import html
import json
import pprint
import random
import re
import textwrap
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


def _string(value: Any) -> str:
    return str(value)


def _integer(value: Any, default: Any = 0, base: int = 10) -> Any:
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


def _number(value: Any, default: Any = 0.0) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _attribute(item: Any, name: str) -> Any:
    for part in str(name).split("."):
        if part.startswith("_"):
            return None
        if isinstance(item, Mapping):
            item = item.get(part)
        elif part.isdigit():
            item = item[int(part)]
        else:
            item = getattr(item, part, None)
    return item


def _join(value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    items = value if attribute is None else (_attribute(item, attribute) for item in value)
    return str(d).join(map(str, items))


def _sum(value: Iterable[Any], attribute: str | None = None, start: Any = 0) -> Any:
    items = value if attribute is None else (_attribute(item, attribute) for item in value)
    return sum(items, start)


def _tojson(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, sort_keys=True, indent=indent)
    return "".join(_UNSAFE.get(character, character) for character in text)


def _truncate(
    value: Any, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5
) -> str:
    text = str(value)
    if len(text) <= length + leeway:
        return text
    kept = text[: max(length - len(end), 0)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def _wordwrap(
    value: Any,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str = "\n",
    break_on_hyphens: bool = True,
) -> str:
    return wrapstring.join(
        wrapstring.join(
            textwrap.wrap(
                line,
                width=width,
                expand_tabs=False,
                replace_whitespace=False,
                break_long_words=break_long_words,
                break_on_hyphens=break_on_hyphens,
            )
        )
        for line in str(value).splitlines()
    )


def _filesizeformat(value: Any, binary: bool = False) -> str:
    size, base = float(value), 1024 if binary else 1000
    if size == 1:
        return "1 Byte"
    if size < base:
        return f"{int(size)} Bytes"
    for power, prefix in enumerate("kMGTPEZY", 2):
        name = f"{prefix.upper()}iB" if binary else f"{prefix}B"
        if size < base**power:
            break
    return f"{size / base ** (power - 1):.1f} {name}"


def _urlencode(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return urllib.parse.quote(str(value), safe="/")
    pairs = value.items() if isinstance(value, Mapping) else value
    return "&".join(
        f"{urllib.parse.quote_plus(str(key))}={urllib.parse.quote_plus(str(item))}" for key, item in pairs
    )


def _striptags(value: Any) -> str:
    text = re.sub(r"<!--.*?-->|<[^>]*>", "", str(value), flags=re.DOTALL)
    return html.unescape(" ".join(text.split()))


def _xmlattr(value: Mapping[str, Any], autospace: bool = True) -> str:
    written = " ".join(
        f'{html.escape(str(key))}="{html.escape(str(item))}"'
        for key, item in value.items()
        if item is not None
    )
    return f" {written}" if autospace and written else written


def _escape(value: Any) -> str:
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("'", "&#39;").replace('"', "&#34;")


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    return str(value) % (kwargs or args)


FILTERS: dict[str, Callable[..., Any]] = {
    "string": _string,
    "int": _integer,
    "float": _number,
    "join": _join,
    "sum": _sum,
    "tojson": _tojson,
    "truncate": _truncate,
    "wordwrap": _wordwrap,
    "wordcount": lambda value: len(re.findall(r"\w+", str(value))),
    "center": lambda value, width=80: str(value).center(width),
    "filesizeformat": _filesizeformat,
    "urlencode": _urlencode,
    "striptags": _striptags,
    "xmlattr": _xmlattr,
    "format": _format,
    "escape": _escape,
    "e": _escape,
    "forceescape": _escape,
    "pprint": lambda value: pprint.pformat(value),
    "random": lambda value: random.choice(list(value)),
}


class _Joiner:
    """Nothing at the first call and the separator at the others."""

    def __init__(self, sep: str = ", ") -> None:
        self._sep = sep
        self._used = False

    def __call__(self) -> str:
        before, self._used = self._used, True
        return self._sep if before else ""


class _Cycler:
    """Its items, again and again."""

    def __init__(self, *items: Any) -> None:
        self._items = items
        self._position = 0

    @property
    def current(self) -> Any:
        return self._items[self._position]

    def next(self) -> Any:
        item, self._position = self.current, (self._position + 1) % len(self._items)
        return item

    def reset(self) -> None:
        self._position = 0


GLOBALS: dict[str, Any] = {"range": range, "dict": dict, "joiner": _Joiner, "cycler": _Cycler}
