"""Helpers around the package `openai`, which is the program's to install: calls that are tried again."""

import asyncio
import random
import time
from typing import Any

from byzerllm.errors import InvalidRequestError, UnsupportedError

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 20.0


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise UnsupportedError("this needs the package openai; run `pip install openai`") from None
    return openai


def get_completion_endpoint(is_chat_model: bool) -> Any:
    """What `create` is called on: the chat completions of `openai`, or its completions."""
    openai = _openai()
    return openai.chat.completions if is_chat_model else openai.completions


def completion_with_retry(is_chat_model: bool, max_retries: int = 3, **kwargs: Any) -> Any:
    """A completion, tried so many times when the server is busy, fails or is out of reach, with growing pauses."""
    openai = _openai()
    endpoint = get_completion_endpoint(is_chat_model)
    for tried in range(1, _tries(max_retries) + 1):
        try:
            return endpoint.create(**kwargs)
        except _passing(openai):
            if tried == max_retries:
                raise
            time.sleep(_pause(tried))


async def async_completion_with_retry(is_chat_model: bool, max_retries: int = 3, **kwargs: Any) -> Any:
    """`completion_with_retry` for an event loop, with a client of its own."""
    openai = _openai()
    async with openai.AsyncOpenAI() as client:
        endpoint = client.chat.completions if is_chat_model else client.completions
        for tried in range(1, _tries(max_retries) + 1):
            try:
                return await endpoint.create(**kwargs)
            except _passing(openai):
                if tried == max_retries:
                    raise
                await asyncio.sleep(_pause(tried))


def _tries(max_retries: int) -> int:
    if max_retries < 1:
        raise InvalidRequestError(f"max_retries must be at least 1, got {max_retries!r}", param="max_retries")
    return max_retries


def _passing(openai: Any) -> tuple[type[Exception], ...]:
    """Failures that may be gone at the next try."""
    return (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError)


def _pause(tried: int) -> float:
    """Doubles with each try; a part of it is chance, so that clients do not come back together."""
    longest: float = min(_FIRST_PAUSE_SECONDS * 2.0 ** (tried - 1), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)
