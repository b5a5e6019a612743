"""Turns JSON Schemas of pydantic, and of Byzer-LLM's tools, into ones that decoding can enforce.

What cannot be enforced is left out: the answer is checked against the class or the signature afterwards anyway. What
is enforced is at times narrower than what is accepted: dates exist, and objects have no members beyond those they name.
"""

import re
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = frozenset({"title", "description", "default"})
_AS_THEY_ARE = frozenset(
    {
        "type",
        "enum",
        "const",
        "required",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "pattern",
        "$ref",
    }
)
_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern"})
_NAMED = ("properties", "$defs", "definitions")
_LISTED = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf", "prefixItems": "prefixItems"}

_DATE = (
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|[1-9][0-9](?:0[48]|[2468][048]|[13579][26])-02-29|(?:[2468][048]|[13579][26])00-02-29"
)
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = "(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])?"
_HEX = "[0-9a-f]"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ADDRESS = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_HOST = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?){0,3}\.[a-z]{2,10}"
# What pydantic takes for these formats, or the part of it that matters.
_FORMATS = {
    "date": f"^(?:{_DATE})$",
    "time": f"^{_TIME}$",
    "date-time": f"^(?:{_DATE})T{_TIME}{_ZONE}$",
    "duration": "^P(?:[0-9]{1,5}D(?:T[0-9]{1,2}H(?:[0-9]{1,2}M)?)?|T[0-9]{1,4}[HMS])$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "uri": f"^https?://{_HOST}(?:/[A-Za-z0-9._~-]{{1,64}}){{0,8}}/?$",
    "email": f"^[a-z0-9](?:[a-z0-9._-]{{0,30}}[a-z0-9])?@{_HOST}$",
    "ipv4": f"^{_ADDRESS}$",
    "ipvanyaddress": f"^{_ADDRESS}$",
    "ipv4network": f"^{_ADDRESS}/32$",
}
# Expressions that look around cannot be enforced.
_LOOKS_AROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9bB]")

_JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "List": "array",
    "tuple": "array",
    "Tuple": "array",
    "set": "array",
    "Set": "array",
    "dict": "object",
    "Dict": "object",
    "datetime": "string",
    "date": "string",
    "time": "string",
}
_REAL_TYPES = frozenset({"integer", "number", "string", "boolean", "null", "array", "object"})


def enforceable(schema: Mapping[str, Any], plain: bool = False, annotated: bool = False) -> Schema:
    """A schema like this one that decoding can enforce.

    `plain` leaves out every limit on numbers and texts, for engines that refuse one. `annotated` keeps titles,
    descriptions and defaults, which models read.
    """
    return _Cleaner(schema, plain, annotated).clean(schema)


class _Cleaner:
    def __init__(self, root: Mapping[str, Any], plain: bool, annotated: bool) -> None:
        self._root = root
        self._plain = plain
        self._kept = (_AS_THEY_ARE - _LIMITS if plain else _AS_THEY_ARE) | (
            _ANNOTATIONS if annotated else frozenset()
        )

    def clean(self, node: Any) -> Schema:
        if not isinstance(node, Mapping):
            return {}
        result: Schema = {}
        for key, value in node.items():
            if key in _NAMED:
                result[key] = {name: self.clean(part) for name, part in value.items()}
            elif key in _LISTED:
                parts = value if key == "prefixItems" else _enforced_alternatives(value)
                result[_LISTED[key]] = [self.clean(part) for part in parts]
            elif key in ("items", "additionalProperties"):
                result[key] = value if isinstance(value, bool) else self.clean(value)
            elif key == "patternProperties":
                self._members(result, value)
            elif key == "format" and value in _FORMATS and "pattern" not in node and not self._plain:
                result["pattern"] = _FORMATS[value]
            elif key in self._kept and not (key == "pattern" and _LOOKS_AROUND.search(value)):
                result[key] = value
        if "propertyNames" in node:
            self._names(result, node["propertyNames"])
        if "properties" in result:
            result.setdefault("additionalProperties", False)
        return result

    def _members(self, result: Schema, patterns: Mapping[str, Any]) -> None:
        """Members whose names match expressions."""
        if self._plain or any(_LOOKS_AROUND.search(pattern) for pattern in patterns):
            result["additionalProperties"] = {"anyOf": [self.clean(part) for part in patterns.values()]}
        else:
            result["patternProperties"] = {pattern: self.clean(part) for pattern, part in patterns.items()}
            result.setdefault("additionalProperties", False)

    def _names(self, result: Schema, names: Any) -> None:
        """A dictionary whose names are an enumeration or match an expression."""
        if isinstance(names, Mapping) and "$ref" in names:
            names = _resolved(self._root, names["$ref"])
        if not isinstance(names, Mapping):
            return
        member = result.get("additionalProperties", {})
        member = member if isinstance(member, Mapping) else {}
        if "const" in names:
            names = {"enum": [names["const"]]}
        if "enum" in names:
            result["properties"] = {str(name): member for name in names["enum"]}
            result["additionalProperties"] = False
            return
        pattern = names.get("pattern")
        if pattern is None and "maxLength" in names:
            pattern = f"^.{{{names.get('minLength', 0)},{names['maxLength']}}}$"
        if pattern is not None and not self._plain and not _LOOKS_AROUND.search(pattern):
            result["patternProperties"] = {pattern: member}
            result["additionalProperties"] = False


def _enforced_alternatives(parts: list[Any]) -> list[Any]:
    """The alternatives that can be enforced, where there are such."""
    return [part for part in parts if not _looks_around(part)] or parts


def _looks_around(part: Any) -> bool:
    return isinstance(part, Mapping) and bool(_LOOKS_AROUND.search(part.get("pattern", "")))


def _resolved(root: Mapping[str, Any], reference: Any) -> Any:
    """What a reference within the schema stands for; an empty schema when it leads nowhere."""
    found: Any = root
    for step in str(reference).removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or step not in found:
            return {}
        found = found[step]
    return found


_MOST_PARTS = 4000


def inlined(schema: Mapping[str, Any]) -> Schema:
    """The schema without references, so that it can stand within another one. Recursion ends with what needs none."""
    parts = 0

    def follow(node: Any, within: tuple[str, ...]) -> Any:
        nonlocal parts
        parts += 1
        if parts > _MOST_PARTS:
            return _AGAIN
        if isinstance(node, list):
            followed = [follow(part, within) for part in node]
            return [part for part in followed if part is not _AGAIN]
        if not isinstance(node, Mapping):
            return node
        rest = {
            # The names of members are no keywords.
            key: {name: follow(part, within) for name, part in value.items()}
            if key == "properties"
            else follow(value, within)
            for key, value in node.items()
            if key not in _NOT_INLINED
        }
        if rest.get("items") is _AGAIN:
            rest = {**rest, "items": {}, "maxItems": 0}
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return rest
        if reference in within:
            return _AGAIN
        return {**follow(_resolved(schema, reference), (*within, reference)), **rest}

    result: Schema = follow(schema, ())
    return result


# Stands for a part that would hold itself.
_AGAIN: Schema = {}
_NOT_INLINED = ("$ref", "$defs", "definitions")


def from_python_words(parameters: Any) -> Schema:
    """The schema behind parameters that name Python's types, as `serialize_function_to_json` writes them."""
    if not isinstance(parameters, Mapping):
        return {"type": "object", "properties": {}}
    properties, required = {}, list(parameters.get("required", []))
    for name, known in (parameters.get("properties") or {}).items():
        part = dict(known) if isinstance(known, Mapping) else {}
        word = part.get("type")
        if isinstance(word, str) and word not in _REAL_TYPES:
            base, _, inner = word.partition("[")
            part.pop("type")
            if base in _JSON_TYPES:
                part["type"] = _JSON_TYPES[base]
            item = _JSON_TYPES.get(inner.rstrip("]"))
            if part.get("type") == "array" and item:
                part["items"] = {"type": item}
        properties[name] = part
        if "required" not in parameters and "default" not in part:
            required.append(name)
    return {**parameters, "type": "object", "properties": properties, "required": required}
