"""Markers around an answer: how a model is told of them, and how they are taken off, in one piece or streamed."""

from collections.abc import Sequence
from dataclasses import dataclass

from byzerllm.errors import InvalidRequestError
from byzerllm.prompts.rendering import format_str_jinja2

DEFAULT = ("<RESPONSE>", "</RESPONSE>")

_TEMPLATE = """请把答案放在两个标记之间：先写 {{ RESPONSE_START }}，再写答案，全部写完后以 {{ RESPONSE_END }} 结束。
如果一次写不完，可以在下一轮接着写，中间不要再写标记。"""

# So many characters of a stream wait for the start marker: a model may say something before it.
_PATIENCE = 256

CONTINUE = "请从刚才停下的地方接着写，不要重复已经写过的内容。"


@dataclass(frozen=True)
class Markers:
    """What an answer starts and ends with."""

    start: str
    end: str
    template: str

    @staticmethod
    def of(markers: Sequence[str] | None, template: str | None) -> "Markers":
        """Checks a pair of markers; `None` stands for the usual ones."""
        pair = DEFAULT if markers is None else markers
        if (
            isinstance(pair, str)
            or len(pair) != 2
            or not all(isinstance(mark, str) and mark for mark in pair)
        ):
            raise InvalidRequestError(
                f"response markers are two texts, the start and the end, got {markers!r}", param="markers"
            )
        return Markers(pair[0], pair[1], _TEMPLATE if template is None else template)

    def request(self, prompt: str) -> str:
        """The prompt, and below it what the model is told of the markers."""
        told = format_str_jinja2(self.template, RESPONSE_START=self.start, RESPONSE_END=self.end)
        return f"{prompt}\n\n{told}"

    def within(self, text: str) -> str:
        """The text between the markers; one that is missing cuts nothing."""
        _, found, after = text.partition(self.start)
        return (after if found else text).partition(self.end)[0]


class Unwrapped:
    """Takes the markers off a stream of pieces, which may cut a marker anywhere."""

    def __init__(self, markers: Markers) -> None:
        self._markers = markers
        self._held = ""
        self._inside = False
        self.ended = False
        """Whether the end marker has come."""

    def feed(self, piece: str) -> str:
        """What of the answer is certain after this piece."""
        if self.ended:
            return ""
        self._held += piece
        if not self._inside:
            _, found, after = self._held.partition(self._markers.start)
            if found:
                self._held = after
            elif len(self._held) < _PATIENCE:
                return ""
            self._inside = True
        before, found, _ = self._held.partition(self._markers.end)
        if found:
            self.ended, self._held = True, ""
            return before
        held = _common(self._held, self._markers.end)
        certain = self._held[: len(self._held) - held]
        self._held = self._held[len(certain) :]
        return certain

    def rest(self) -> str:
        """What was held back at the end of the answer."""
        held, self._held = self._held, ""
        return "" if self.ended else held


def _common(text: str, mark: str) -> int:
    """How many characters at the end of the text may be the beginning of the mark."""
    return next(
        (size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0
    )
