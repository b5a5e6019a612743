"""What OpenAI-compatible vendors take and give, in our own words."""

import json
import time
from collections.abc import Iterator
from typing import Any

from byzerllm import answers
from byzerllm.errors import make

Item = dict[str, Any]


class Clock:
    """When a stream began and what came when, as `answers.Fold` asks for it."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first = 0.0
        self.open = False

    def tick(self) -> None:
        """Notes the first piece of text."""
        self._first = self._first or self._now()

    def timing(self) -> dict[str, float]:
        return {"first_token_ms": self._first, "total_ms": self._now()}

    def _now(self) -> float:
        return (time.monotonic() - self._started) * 1000


def messages(history: list[Item], plain: bool) -> list[Item]:
    """A conversation as vendors take it; images in a text become parts of it, unless it is to stay `plain`."""
    written = []
    for message in history:
        content = message["content"]
        if not plain and isinstance(content, str) and "<_image_>" in content:
            from byzerllm.utils.nontext import Image

            content = [
                {"type": "image_url", "image_url": {"url": part["image"]}}
                if "image" in part
                else {"type": "text", "text": part["text"]}
                for part in json.loads(Image(content).to_content())
            ]
        written.append({**message, "content": content})
    return written


def put_prefix(body: Item, base_url: str, prefix: str | None) -> None:
    """What the answer is to start with: given, or the second of two user messages at the end, or the model's own."""
    history = body["messages"]
    if prefix is None:
        roles = [message["role"] for message in history[-2:]]
        if roles != ["user", "user"] and roles[-1:] != ["assistant"]:
            return
        prefix = history.pop()["content"]
    if "siliconflow" in base_url:
        body["prefix"] = prefix
        return
    message = {"role": "assistant", "content": prefix}
    if "deepseek" in base_url:
        message["prefix"] = True
    history.append(message)


def results(answer: Item, item: Item, started: float) -> answers.Results:
    """A whole answer in the form that event callbacks see."""
    usage = answer.get("usage") or {}
    spent = (time.monotonic() - started) * 1000
    written = usage.get("completion_tokens") or 0
    found: answers.Results = []
    for choice in answer.get("choices") or []:
        message = choice.get("message") or {}
        metadata = {
            "request_id": answer.get("id", ""),
            "input_tokens_count": usage.get("prompt_tokens") or 0,
            "generated_tokens_count": written,
            "time_cost": spent,
            "first_token_time": 0,
            "speed": written / spent * 1000 if spent > 0 else 0.0,
            "finish_reason": choice.get("finish_reason") or "",
            "reasoning_content": message.get("reasoning_content") or message.get("reasoning") or "",
        }
        found.append({"predict": message.get("content") or "", "metadata": metadata, "input": item})
    if not found:
        raise make("upstream", f"the vendor's answer has no choices: {str(answer)[:200]}")
    return found


def events(chunk: Item, clock: Clock) -> Iterator[Item]:
    """The events that a chunk of a stream stands for."""
    if not clock.open:
        clock.open = True
        yield {"event": "started", "request_id": chunk.get("id", "")}
    for choice in chunk.get("choices") or []:
        delta = choice.get("delta") or {}
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            clock.tick()
            yield {"event": "reasoning", "text": reasoning}
        if delta.get("content"):
            clock.tick()
            yield {"event": "text", "text": delta["content"]}
        if choice.get("finish_reason"):
            yield {"event": "finished", "reason": choice["finish_reason"]}
    if chunk.get("usage"):
        usage = chunk["usage"]
        yield {
            "event": "usage",
            "prompt_tokens": usage.get("prompt_tokens") or 0,
            "completion_tokens": usage.get("completion_tokens") or 0,
        }
