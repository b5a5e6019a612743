"""What a prompt function learned about its answer, beside the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class MetaOutput:
    """What every model reports about an answer.

    Args:
        input_tokens_count: tokens read.
        generated_tokens_count: tokens written.
        reasoning_content: what the model thought.
        finish_reason: why the answer ended.
        first_token_time: milliseconds until the first token.

    Example:
        >>> MetaOutput().finish_reason
        ''
    """

    input_tokens_count: int = 0
    generated_tokens_count: int = 0
    reasoning_content: str = ""
    finish_reason: str = ""
    first_token_time: float = 0.0


class MetaHolder:
    """Receives what is known about an answer: give it to `with_meta` and read it after the run.

    After several turns the token counts are sums. A stream fills it while it runs.

    Args:
        meta: what is known already; nothing unless given.

    Example:
        >>> holder = MetaHolder()
        >>> capital.with_meta(holder)("France")
        >>> holder.get_meta_model().finish_reason
        'stop'
    """

    def __init__(self, meta: Any = None) -> None:
        self.meta = meta

    def get_meta(self) -> dict[str, Any]:
        """Everything that is known, by name; empty before the run. `first_token_time` is in milliseconds.

        Example:
            >>> holder.get_meta()["generated_tokens_count"]
            8
        """
        if self.meta is None:
            return {}
        return dict(self.meta) if isinstance(self.meta, Mapping) else dict(vars(self.meta))

    def get_meta_model(self) -> MetaOutput:
        """The same as a `MetaOutput`, of what every model reports.

        Example:
            >>> holder.get_meta_model().generated_tokens_count
            8
        """
        meta = self.get_meta()
        known = {name: meta[name] for name in MetaOutput.__dataclass_fields__ if meta.get(name) is not None}
        return MetaOutput(**known)


_COUNTS = ("input_tokens_count", "generated_tokens_count")


def summed(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known about an answer of several turns: that of the last one, with the tokens of all."""
    if not turns:
        return {}
    counts = {name: sum(turn.get(name) or 0 for turn in turns) for name in _COUNTS}
    return {**turns[-1], **counts}
