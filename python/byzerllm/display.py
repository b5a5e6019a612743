"""How answers look in a notebook. Jupyter asks an object for `_repr_html_` when it is the last line of a cell."""

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_BOX = "border-left:3px solid #8888;padding:0 0 0 .8em;margin:.4em 0"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere"
_SMALL = "opacity:.65;font-size:85%"


class Responses(list[T]):
    """A list of answers that a notebook shows one below the other."""

    def _repr_html_(self) -> str:
        return "".join(
            item._repr_html_() if hasattr(item, "_repr_html_") else paragraph(repr(item)) for item in self
        )


def _escape(text: str) -> str:
    from html import escape  # loads tables that programs without a notebook never need

    return escape(text)


def paragraph(text: str) -> str:
    """Text as it stands, line breaks and spaces included."""
    return f'<div style="{_TEXT}">{_escape(text)}</div>'


def response(output: Any, metadata: Mapping[str, Any]) -> str:
    """An answer's text, its reasoning folded away, and what it took."""
    thoughts = metadata.get("reasoning_content")
    folded = f"<details><summary>reasoning</summary>{paragraph(str(thoughts))}</details>" if thoughts else ""
    text = output if isinstance(output, str) else _shortened(output)
    return f'<div style="{_BOX}">{folded}{paragraph(text)}{_facts(metadata)}</div>'


def value(found: Any, metadata: Mapping[str, Any], answer: Any) -> str:
    """What was made of an answer: objects or results; without any, the reason and the answer itself."""
    reason = metadata.get("reason")
    told = f'<div style="color:#b33">{_escape(str(reason))}</div>' if reason else ""
    if found is None or found == []:
        return f'<div style="{_BOX}">{told}{answer._repr_html_()}</div>'
    return f'<div style="{_BOX}">{_shown(found)}{told}{_facts(answer.metadata)}</div>'


def _shown(found: Any) -> str:
    """An object as a table of its fields, a list item by item, anything else as Python writes it."""
    if isinstance(found, list):
        return "".join(f"<div>{_shown(item)}</div>" for item in found)
    fields = getattr(type(found), "model_fields", None) or getattr(found, "__dataclass_fields__", None)
    if not fields:
        return paragraph(found if isinstance(found, str) else repr(found))
    cell = 'style="text-align:left;vertical-align:top"'
    rows = "".join(
        f"<tr><th {cell}>{_escape(name)}</th><td {cell}>{_shown(getattr(found, name))}</td></tr>"
        for name in fields
    )
    return f"<table><caption>{_escape(type(found).__name__)}</caption>{rows}</table>"


def _shortened(output: Any) -> str:
    text = repr(output)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(output)} items)"


def _facts(metadata: Mapping[str, Any]) -> str:
    parts = []
    if metadata.get("generated_tokens_count"):
        read, written = metadata.get("input_tokens_count", 0), metadata["generated_tokens_count"]
        parts.append(f"{read} + {written} tokens")
    if metadata.get("time_cost"):
        parts.append(f"{metadata['time_cost'] / 1000:.2f} s")
    if metadata.get("speed"):
        parts.append(f"{metadata['speed']:.0f} tokens/s")
    if metadata.get("finish_reason"):
        parts.append(str(metadata["finish_reason"]))
    return f'<div style="{_SMALL}">{_escape(" · ".join(parts))}</div>' if parts else ""
