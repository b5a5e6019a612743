"""Checks the messages of a conversation and brings them into the form that the engine takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.types import LLMHistoryItem

Conversations = str | Sequence[Mapping[str, Any] | LLMHistoryItem]

_ROLES = ("system", "user", "assistant", "tool")


def messages(conversations: Conversations) -> list[dict[str, Any]]:
    """A fresh list of fresh messages without their `metadata`; a string is one user message."""
    if isinstance(conversations, str):
        return [{"role": "user", "content": conversations}]
    if not isinstance(conversations, (list, tuple)):
        raise InvalidRequestError(
            f"conversations must be a string or a list of messages, got {type(conversations).__name__}",
            param="conversations",
        )
    if not conversations:
        raise InvalidRequestError("conversations is empty; give at least one message", param="conversations")
    return [_message(index, item) for index, item in enumerate(conversations)]


def _message(index: int, item: Any) -> dict[str, Any]:
    if isinstance(item, LLMHistoryItem):
        item = {"role": item.role, "content": item.content}
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        raise InvalidRequestError(
            f"message {index} must be a dictionary with 'role' and 'content'", param="conversations"
        )
    content = item.get("content")
    if isinstance(content, (list, dict)):
        raise UnsupportedError(
            f"message {index}: only text content is supported by this version", param="conversations"
        )
    if content is None and item.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise InvalidRequestError(f"the content of message {index} must be a string", param="conversations")
    rest = {key: value for key, value in item.items() if key not in ("role", "content", "metadata")}
    return {"role": item["role"], "content": content, **rest}


def for_engine(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The engine's form: what only templates read lies under `extra`."""
    result = []
    for index, message in enumerate(conversation):
        if message["role"] not in _ROLES:
            raise InvalidRequestError(
                f"message {index}: unknown role {message['role']!r}; use one of {', '.join(_ROLES)}",
                param="conversations",
            )
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        result.append({"role": message["role"], "content": message["content"], "extra": extra})
    return result
