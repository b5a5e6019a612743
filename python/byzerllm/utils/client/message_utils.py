"""Messages between agents: dictionaries with `content`, `role` and `metadata`. Every function returns its message."""

from collections.abc import Iterable, Mapping
from typing import Any

Message = dict[str, Any]

_FILLER = "continue"


def _noted(message: Message, **facts: Any) -> Message:
    message["metadata"] = {**(message.get("metadata") or {}), **facts}
    return message


def _fact(message: Mapping[str, Any], name: str, default: Any) -> Any:
    return (message.get("metadata") or {}).get(name, default)


def termindate_message(message: Message) -> Message:
    """Says that the conversation ends with this message (the spelling is Byzer-LLM's).

    Args:
        message: is changed and returned.

    Example:
        >>> termindate_message({"role": "user", "content": "Bye"})["metadata"]
        {'TERMINATE': True}
    """
    return _noted(message, TERMINATE=True)


def un_termindate_message(message: Message) -> Message:
    """Says that the conversation goes on.

    Args:
        message: is changed and returned.

    Example:
        >>> un_termindate_message({"role": "user", "content": "Hello"})["metadata"]
        {'TERMINATE': False}
    """
    return _noted(message, TERMINATE=False)


def success_message(message: Message) -> Message:
    """Marks a message as a success: code 0.

    Args:
        message: is changed and returned.

    Example:
        >>> is_success(success_message({"role": "user", "content": "Hello"}))
        True
    """
    return _noted(message, code=0)


def fail_message(message: Message) -> Message:
    """Marks a message as a failure: code 1.

    Args:
        message: is changed and returned.

    Example:
        >>> is_success(fail_message({"role": "user", "content": "Hello"}))
        False
    """
    return _noted(message, code=1)


def is_success(message: Mapping[str, Any]) -> bool:
    """Whether a message is marked as a success.

    Args:
        message: the message.

    Example:
        >>> is_success({"role": "user", "content": "Hello"})
        False
    """
    return bool(_fact(message, "code", None) == 0)


def copy_error_count(message: Mapping[str, Any], reply_message: Message) -> Message:
    """Gives a reply the number of errors of the message before it.

    Args:
        message: the message before.
        reply_message: is changed and returned.

    Example:
        >>> get_error_count(copy_error_count(inc_error_count({}), {}))
        1
    """
    return _noted(reply_message, error_count=get_error_count(message))


def get_error_count(message: Mapping[str, Any]) -> int:
    """How many errors there were so far.

    Args:
        message: the message.

    Example:
        >>> get_error_count({"role": "user", "content": "Hello"})
        0
    """
    return int(_fact(message, "error_count", 0))


def inc_error_count(message: Message) -> Message:
    """Counts one error more.

    Args:
        message: is changed and returned.

    Example:
        >>> get_error_count(inc_error_count({"role": "user", "content": "Hello"}))
        1
    """
    return _noted(message, error_count=get_error_count(message) + 1)


def check_error_count(message: Mapping[str, Any], max_error_count: int = 3) -> bool:
    """Whether there were as many errors as there may be.

    Args:
        message: the message.
        max_error_count: how many there may be.

    Example:
        >>> check_error_count(inc_error_count({}), max_error_count=1)
        True
    """
    return get_error_count(message) >= max_error_count


def padding_messages_merge(data: Iterable[Message]) -> list[Message]:
    """The messages as an alternation that starts and ends with the user.

    Neighbours of one role become one message, and `continue` of the user is put before an assistant that
    comes first and after one that comes last. A leading system message stays in front.

    Args:
        data: the messages; they are not changed.

    Example:
        >>> [one["role"] for one in padding_messages_merge([{"role": "assistant", "content": "Hello"}])]
        ['user', 'assistant', 'user']
    """
    merged: list[Message] = []
    for message in data:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] = f"{merged[-1]['content']}\n{message['content']}"
        else:
            merged.append(dict(message))
    return _ended_by_user(merged)


def padding_messages_expand(data: Iterable[Message]) -> list[Message]:
    """Like `padding_messages_merge`, but between neighbours of one role comes a `continue` of the other one.

    Args:
        data: the messages; they are not changed.

    Example:
        >>> [one["role"] for one in padding_messages_expand([{"role": "user", "content": "Hello"}] * 2)]
        ['user', 'assistant', 'user']
    """
    expanded: list[Message] = []
    for message in data:
        if expanded and expanded[-1]["role"] == message["role"] != "system":
            expanded.append(_filler("user" if message["role"] == "assistant" else "assistant"))
        expanded.append(dict(message))
    return _ended_by_user(expanded)


def _ended_by_user(messages: list[Message]) -> list[Message]:
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), None)
    if first is None:
        return messages
    if messages[first]["role"] == "assistant":
        messages.insert(first, _filler("user"))
    if messages[-1]["role"] == "assistant":
        messages.append(_filler("user"))
    return messages


def _filler(role: str) -> Message:
    return {"role": role, "content": _FILLER}
