"""Reads the JSON in what a model wrote: alone, in fences, within prose, and with the usual mistakes.

Mended are single and typographic quotes, names without quotes, trailing and missing commas, comments, Python's
words for constants, line breaks within strings, quotes within strings that lack a backslash, and, where the answer was
not cut, brackets that were never closed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

NO_JSON = "No json block found"

_FENCE = re.compile(r"```[ \t]*([^\s`]*)[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LANGUAGES = ("", "json", "json5", "jsonc", "javascript", "js")
# A document that is not closed is tried from so many opening brackets.
_STARTS = 32
_MAX_DEPTH = 128
_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "‘": "’", "「": "」"}
_WORDS = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
    "undefined": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_COMMAS = ",，;"
_COLONS = ":：="
_WORD = re.compile(r"[^\s,，:：=\[\]{}\"'“”]+")
_UNQUOTED = re.compile(r"[^,，\n\]}]+")
_OPENING = re.compile(r"[\[{]")
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BLANK = re.compile(r"\s*")
_FOLLOWS_COMMA = re.compile(
    r"\s*(?:\Z|[\"'“‘「\[\]{}]|//|-?\d|[\w-]+\s*[:：=]|(?:true|false|null|True|False|None)\b)"
)
_SPACE = re.compile(r"(?:\s|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)


def documents(text: str, closed: bool = True) -> list[Any]:
    """Every JSON object or list in a text, in order. With `closed`, brackets left open at the end are closed.

    Fenced blocks count before what stands around them; blocks of other languages do not count.
    """
    whole = text.strip()
    try:
        return [_without_surrogates(json.loads(whole))]
    except (ValueError, RecursionError):
        pass
    fenced = [body for language, body in _FENCE.findall(whole) if language.lower() in _LANGUAGES]
    found = [value for body in fenced for value in _within(body, closed)]
    if found or fenced:
        return found
    return list(_within(_FENCE.sub("", whole), closed))


def last(text: str, closed: bool = True) -> Any:
    """The last JSON document of a text. Raises `ValueError` when there is none."""
    found = documents(text, closed)
    if not found:
        raise ValueError(NO_JSON)
    return found[-1]


def _within(text: str, closed: bool) -> Iterator[Any]:
    """The documents of a text without fences."""
    try:
        yield _without_surrogates(json.loads(text))
        return
    except (ValueError, RecursionError):
        pass
    place, starts = 0, 0
    while starts < _STARTS:
        opening = _OPENING.search(text, place)
        if opening is None:
            return
        starts += 1
        reader = _Reader(text, opening.start(), closed)
        try:
            value = reader.value(0)
        except _Unreadable:
            place = opening.start() + 1
            continue
        place = reader.place
        # Brackets in prose, like [1], are lists too; what is looked for has names.
        if isinstance(value, dict) or any(isinstance(item, dict) for item in value):
            yield _without_surrogates(value)


class _Unreadable(Exception):
    """There is no document here."""


class _Reader:
    """Reads one document from a place in a text."""

    def __init__(self, text: str, place: int, closed: bool) -> None:
        self.text = text
        self.place = place
        self._closed = closed

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise _Unreadable
        first = self._next()
        if first == "{":
            return self._object(depth)
        if first == "[":
            return self._list(depth)
        if first in _QUOTES:
            return self._string()
        if not first:
            raise _Unreadable
        return self._word()

    def _next(self) -> str:
        """The next character that means something; empty at the end."""
        space = _SPACE.match(self.text, self.place)
        self.place = space.end() if space else self.place
        return self.text[self.place : self.place + 1]

    def _end(self, closing: str) -> bool:
        """Whether the innermost bracket is closed here, by its sign or by the end of the text."""
        character = self._next()
        while character and character in _COMMAS:
            self.place += 1
            character = self._next()
        if not character:
            if not self._closed:
                raise _Unreadable
            return True
        if character == closing:
            self.place += 1
            return True
        # Another bracket's sign: this one was forgotten.
        return character in "]}" and self._closed

    def _object(self, depth: int) -> dict[str, Any]:
        self.place += 1
        result: dict[str, Any] = {}
        while not self._end("}"):
            if self.text[self.place] in "[{":
                raise _Unreadable
            name = self._string() if self.text[self.place] in _QUOTES else self._name()
            character = self._next()
            if not character or character not in _COLONS:
                if not character and self._closed:
                    break
                raise _Unreadable
            self.place += 1
            if not self._next():
                if self._closed:
                    break
                raise _Unreadable
            result[name] = self.value(depth + 1)
        return result

    def _list(self, depth: int) -> list[Any]:
        self.place += 1
        result = []
        while not self._end("]"):
            result.append(self.value(depth + 1))
        return result

    def _name(self) -> str:
        found = _WORD.match(self.text, self.place)
        if found is None:
            raise _Unreadable
        self.place = found.end()
        return found[0]

    def _word(self) -> Any:
        """A number, a constant, or text that lost its quotes: up to the comma or bracket on its line."""
        found = _UNQUOTED.match(self.text, self.place)
        if found is None:
            raise _Unreadable
        word = found[0].strip()
        self.place = found.end()
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word):
            try:
                return json.loads(word.replace("_", "").lstrip("+"))
            except ValueError:
                return word
        # A comment may follow on the line.
        short = re.split(r"\s(?://|#)", word)[0].strip()
        return _WORDS[short] if short in _WORDS else json.loads(short) if _is_number(short) else word

    def _string(self) -> str:
        closing = _QUOTES[self.text[self.place]]
        self.place += 1
        parts: list[str] = []
        text, length = self.text, len(self.text)
        while self.place < length:
            character = text[self.place]
            if character == "\\":
                parts.append(self._escape())
                continue
            self.place += 1
            if character == closing and self._closes():
                return "".join(parts)
            parts.append(character)
        if not self._closed:
            raise _Unreadable
        return "".join(parts)

    def _closes(self) -> bool:
        """Whether a quote ends its string: then a comma, a colon, a bracket or the end follows."""
        after = _BLANK.match(self.text, self.place)
        place = after.end() if after else self.place
        following = self.text[place : place + 1]
        if not following or following in "]}" or following in _COLONS:
            return True
        if following in _COMMAS:
            return _FOLLOWS_COMMA.match(self.text, place + 1) is not None
        # A name or a value on the next line: its comma was forgotten.
        return "\n" in self.text[self.place : place] and (following in _QUOTES or following in "{[")

    def _escape(self) -> str:
        escaped = self.text[self.place + 1 : self.place + 2]
        if escaped == "u":
            digits = self.text[self.place + 2 : self.place + 6]
            if re.fullmatch("[0-9a-fA-F]{4}", digits):
                self.place += 6
                return chr(int(digits, 16))
        self.place += 2
        return _ESCAPES.get(escaped, escaped)


def _is_number(word: str) -> bool:
    try:
        return isinstance(json.loads(word), (int, float))
    except ValueError:
        return False


def _without_surrogates(value: Any) -> Any:
    """The value with halves of characters joined or replaced: they cannot be written out or sent."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
