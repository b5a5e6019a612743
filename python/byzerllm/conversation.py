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
    if isinstance(content, (list, tuple)):
        parts = [_part(index, part) for part in content]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        rest = {key: value for key, value in item.items() if key not in ("role", "content", "metadata")}
        return {"role": item["role"], "content": text, "parts": parts, **rest}
    if content is None and item.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise InvalidRequestError(f"the content of message {index} must be a string", param="conversations")
    rest = {key: value for key, value in item.items() if key not in ("role", "content", "metadata")}
    return {"role": item["role"], "content": content, **rest}


def _part(index: int, part: Any) -> dict[str, Any]:
    """A piece of a message, in OpenAI's form or in that of Byzer-LLM (`{"image": …}`, `{"text": …}`)."""
    if isinstance(part, Mapping):
        if isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        image = part.get("image_url", part.get("image"))
        found = image if isinstance(image, Mapping) else {"url": image}
        if isinstance(found.get("url"), str):
            url = found["url"]
            if not url.startswith(("data:", "http://", "https://")):
                url = f"data:image/jpeg;base64,{url}"
            detail = {"detail": found["detail"]} if found.get("detail") else {}
            return {"type": "image", "url": url, **detail}
    raise UnsupportedError(
        f"message {index}: a part of a message is a text or an image, got {str(part)[:80]!r}",
        param="conversations",
    )


def _tagged(text: str) -> list[dict[str, Any]]:
    """The parts of a text that holds images between tags, or that is the JSON of a list with images."""
    import json

    from byzerllm.utils.nontext import Image

    if "<_image_>" in text:
        return [_part(0, part) for part in json.loads(Image(text).to_content())]
    if text.lstrip().startswith("[{") and '"image' in text:
        try:
            listed = json.loads(text)
        except ValueError:
            return []
        if isinstance(listed, list) and all(isinstance(part, dict) for part in listed):
            return [_part(0, part) for part in listed]
    return []


def for_engine(conversation: list[dict[str, Any]], plain: bool = True) -> list[dict[str, Any]]:
    """The engine's form: what only templates read lies under `extra`; images in a text become parts unless `plain`."""
    result = []
    for index, message in enumerate(conversation):
        if message["role"] not in _ROLES:
            raise InvalidRequestError(
                f"message {index}: unknown role {message['role']!r}; use one of {', '.join(_ROLES)}",
                param="conversations",
            )
        extra = {key: value for key, value in message.items() if key not in ("role", "content", "parts")}
        made = {"role": message["role"], "content": message["content"], "extra": extra}
        parts = message.get("parts") or ([] if plain else _tagged(message["content"]))
        if parts:
            made["content"] = "\n".join(part["text"] for part in parts if part["type"] == "text")
            made["parts"] = parts
        result.append(made)
    return result
