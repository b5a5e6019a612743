"""Makes results and stream items of what the engine tells."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byzerllm import running
from byzerllm.errors import InvalidRequestError, make
from byzerllm.types import SingleOutputMeta, StreamItem

if TYPE_CHECKING:
    from byzerllm._native import Call

Item = dict[str, Any]
Results = list[dict[str, Any]]


def results(response: dict[str, Any], item: Item) -> Results:
    """One result per choice, in the form that event callbacks see."""
    usage, timing = response["usage"], response["timing"]
    found = []
    for choice in response["choices"]:
        reason = choice["finish_reason"]
        if reason["reason"] == "error":
            raise make(reason["detail"]["kind"], reason["detail"]["message"], usage=usage)
        logprobs = choice.get("logprobs")
        metadata = {
            "request_id": response["request_id"],
            "input_tokens_count": usage["prompt_tokens"],
            "generated_tokens_count": usage["completion_tokens"],
            "time_cost": timing["total_ms"],
            "first_token_time": timing["first_token_ms"],
            "speed": _speed(usage["completion_tokens"], timing["total_ms"]),
            "prob": sum(token["logprob"] or 0.0 for token in logprobs) if logprobs else -1.0,
            "finish_reason": reason["reason"],
        }
        if choice["reasoning"]:
            metadata["reasoning_content"] = choice["reasoning"]
        text = choice["text"]
        if choice["tool_calls"]:
            if text:
                metadata["content"] = text
            metadata["tool_calls"], text = _called(choice["tool_calls"])
        found.append({"predict": text, "metadata": metadata, "input": item})
    for notice in response.get("notices") or ():
        if notice["notice"] == "invalid_tool_call" and notice["choice"] < len(found):
            found[notice["choice"]]["metadata"]["invalid_tool_call"] = notice["reason"]
    return found


def _called(calls: Sequence[Sequence[str]]) -> tuple[list[Item], str]:
    """The calls of a choice in OpenAI's form, and as the text that Byzer-LLM's prompt asks for."""
    import json

    known = [
        {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
        for identifier, name, arguments in calls
    ]
    written = []
    for _, name, arguments in calls:
        try:
            read = json.loads(arguments)
        except ValueError:
            read = arguments
        written.append({"function": {"name": name, "arguments": read}})
    text = {"id": calls[0][0], "type": "function", "tool_calls": written}
    return known, json.dumps(text, ensure_ascii=False)


def _speed(tokens: int, milliseconds: float) -> float:
    return tokens / milliseconds * 1000 if milliseconds > 0 else 0.0


def checked(value: Any) -> Results:
    """What an event callback gave in the place of results."""
    if not isinstance(value, list) or not all(
        isinstance(result, Mapping) and "predict" in result for result in value
    ):
        raise InvalidRequestError(
            "an event callback must give a list of results, dictionaries with 'predict' and, if known, "
            f"'metadata' and 'input'; got {value!r}"
        )
    return value


def given(found: Results, clean: Callable[[str], str]) -> Iterator[StreamItem]:
    """The stream of an answer that an event callback gave: one item."""
    for result in found[:1]:
        known = result.get("metadata") or {}
        meta = SingleOutputMeta(
            input_tokens_count=known.get("input_tokens_count", 0),
            generated_tokens_count=known.get("generated_tokens_count", 0),
            reasoning_content=known.get("reasoning_content", ""),
            finish_reason=known.get("finish_reason", ""),
        )
        yield StreamItem(clean(str(result["predict"])), meta)


class Fold:
    """Folds the events of one answer into items; a snapshot equal to the one before is skipped."""

    def __init__(self, clean: Callable[[str], str], delta_mode: bool) -> None:
        self._clean = clean
        self._delta_mode = delta_mode
        self._meta = SingleOutputMeta()
        self._raw = self._seen = self._reasoning = ""
        self._stream: running.Stream | None = None

    def was_aborted(self) -> bool:
        """Whether `abort` ended the answer, which is then its finish reason."""
        if self._stream is None or not self._stream.aborted:
            return False
        self._meta.finish_reason = "abort"
        return True

    def item(self, event: dict[str, Any], call: "Call") -> StreamItem | None:
        """The item that an event makes, if it makes one."""
        meta, kind = self._meta, event["event"]
        if kind == "started":
            meta.extra_info["request_id"] = event["request_id"]
            self._stream = running.note(event["request_id"], call)
        elif kind == "notice" and event["notice"] == "restarted":
            self._raw = self._seen = self._reasoning = ""
        elif kind == "reasoning":
            self._reasoning += event["text"]
            meta.reasoning_content = event["text"] if self._delta_mode else self._reasoning
            return StreamItem("" if self._delta_mode else self._seen, meta)
        elif kind == "text":
            return self._text(event["text"], call)
        elif kind == "finished":
            if event["reason"] == "error":
                raise make(event["detail"]["kind"], event["detail"]["message"])
            meta.finish_reason = event["reason"]
        elif kind == "usage":
            total = call.timing()["total_ms"]
            meta.input_tokens_count = event["prompt_tokens"]
            meta.generated_tokens_count = event["completion_tokens"]
            meta.extra_info["time_cost"] = total
            if total > 0:
                meta.extra_info["speed"] = _speed(event["completion_tokens"], total)
        return None

    def _text(self, new: str, call: "Call") -> StreamItem | None:
        self._raw += new
        text = self._clean(self._raw)
        if text == self._seen:
            return None
        new, self._seen = text[len(self._seen) :], text
        if self._delta_mode:
            self._meta.reasoning_content = ""
        if not self._meta.first_token_time:
            self._meta.first_token_time = call.timing()["first_token_ms"]
        return StreamItem(new if self._delta_mode else text, self._meta)

    def results(self, item: Item) -> Results:
        """The whole answer, in the form that event callbacks see."""
        meta = self._meta
        metadata = {
            "request_id": meta.extra_info.get("request_id", ""),
            "input_tokens_count": meta.input_tokens_count,
            "generated_tokens_count": meta.generated_tokens_count,
            "time_cost": meta.extra_info.get("time_cost", 0.0),
            "first_token_time": meta.first_token_time,
            "speed": meta.extra_info.get("speed", 0.0),
            "prob": -1.0,
            "finish_reason": meta.finish_reason,
        }
        if self._reasoning:
            metadata["reasoning_content"] = self._reasoning
        return [{"predict": self._raw, "metadata": metadata, "input": item}]
