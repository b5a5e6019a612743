"""When generation stops: helpers for programs that drive tokenizers and transformers themselves."""

from collections.abc import Sequence
from typing import Any

from byzerllm.errors import TooLargeError

StopSequence = str | int | list[int]


def compute_max_new_tokens(tokens: Any, max_length: int) -> int:
    """What is left of `max_length` after a batch of token ids, a tensor or nested lists; nothing left is an error."""
    length = tokens.shape[1] if hasattr(tokens, "shape") else len(tokens[0])
    left = max_length - int(length)
    if left <= 0:
        raise TooLargeError(
            f"Input is too long ({length}). Try to reduce the length of history or use a larger `max_length` value "
            f"(now:{max_length})",
            param="max_length",
        )
    return left


def tokenize_string(tokenizer: Any, key: str) -> int | list[int]:
    """The token ids of a text without special tokens; a single one as a number."""
    ids = list(tokenizer.encode(key, add_special_tokens=False))
    return ids[0] if len(ids) == 1 else ids


def tokenize_stopping_sequences(tokenizer: Any, stopping_sequences: Sequence[str]) -> list[int | list[int]]:
    """The token ids of texts that end an answer."""
    return [tokenize_string(tokenizer, sequence) for sequence in stopping_sequences]


def tokenize_stopping_sequences_where_needed(
    tokenizer: Any, stopping_sequences: Sequence[StopSequence] | None
) -> list[int | list[int]] | None:
    """The same for a list in which some sequences are token ids already."""
    if not stopping_sequences:
        return None
    return [
        tokenize_string(tokenizer, sequence) if isinstance(sequence, str) else sequence
        for sequence in stopping_sequences
    ]


class StopSequencesCriteria:
    """Says when a generation of transformers has written one of some texts. It fits into a `StoppingCriteriaList`."""

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[str] = (),
        input_start: int = 0,
        skip_check_min_length: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.stops = list(stops)
        self.input_start = input_start
        self.skip_check_min_length = skip_check_min_length

    def to_str(self, ids: Any) -> str:
        """The text of token ids."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def __call__(self, input_ids: Any, scores: Any = None, **kwargs: Any) -> bool:
        """Whether what follows the prompt holds one of the texts."""
        written = input_ids[0][self.input_start :]
        if len(written) < self.skip_check_min_length:
            return False
        text = self.to_str(written)
        return any(stop in text for stop in self.stops)
