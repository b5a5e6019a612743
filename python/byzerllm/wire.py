"""The requests that Byzer-LLM's client sent to a worker, for programs that send them themselves.

A request is a flat dictionary: `instruction`, perhaps `history`, generation keys, and for other work than answering one of
`tokenizer`, `apply_chat_template`, `meta`, `embedding`, `embed_rerank`. Each becomes a dictionary of `predict`, `metadata` and `input`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byzerllm import running
from byzerllm.errors import InvalidRequestError
from byzerllm.parameters import boolean

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

_ABORT = ("gen.abort", "generation.abort")
_REQUEST_ID = ("gen.request_id", "generation.request_id")
_WORK = ("tokenizer", "apply_chat_template", "embedding", "embed_rerank", "meta")


def query(llm: "ByzerLLM", model: str, input_value: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a deployment makes of requests, in their order. Those that are answered run together."""
    items = [_checked(item) for item in input_value]
    done: dict[int, dict[str, Any]] = {}
    pairs = []
    for index, item in enumerate(items):
        result = _without_answer(llm, model, item)
        if result is None:
            pairs.append((index, item, llm._do(_request(llm, model, item))))
        else:
            done[index] = {"predict": result, "metadata": {}, "input": item}
    if pairs:
        results = llm._results(model, [(item, request) for _, item, request in pairs])
        if len(results) != len(pairs):
            # Several answers each, or what an event callback gave: the order is theirs.
            return [*results, *done.values()]
        done.update(zip((index for index, _, _ in pairs), results, strict=True))
    return [done[index] for index in sorted(done)]


def _checked(item: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(item)
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"input_value should be json serializable, got {item!r}", param="input_value"
        ) from None
    if not isinstance(item, Mapping) or "instruction" not in item:
        raise InvalidRequestError(
            f"a request is a dictionary with 'instruction', got {item!r}", param="input_value"
        )
    return dict(item)


def _is(item: Mapping[str, Any], *keys: str) -> bool:
    return any(boolean(key, item[key]) for key in keys if key in item)


def _without_answer(llm: "ByzerLLM", model: str, item: dict[str, Any]) -> Any:
    """What a request gets that asks for something else than an answer; `None` for the others."""
    if _is(item, "tokenizer"):
        return llm.tokenize(model, item["instruction"])[0].output
    if _is(item, "apply_chat_template"):
        return llm.apply_chat_template(model, item["instruction"])
    # Every request has a `max_length`, which says how long an answer may become.
    config = {
        key: value for key, value in item.items() if key not in ("instruction", "history", "max_length", *_WORK)
    }
    if _is(item, "embed_rerank"):
        return llm.emb_rerank(model, item["instruction"], config)[0].output
    if _is(item, "embedding"):
        return llm.emb(model, str(item["instruction"]), config)[0].output
    if _is(item, "meta"):
        return [llm.get_meta(model)]
    if _is(item, *_ABORT):
        running.abort(next((str(item[key]) for key in _REQUEST_ID if key in item), str(item["instruction"])))
        return ""
    return None


def _request(llm: "ByzerLLM", model: str, item: dict[str, Any]) -> Any:
    """With a history the instruction is the last message; without, it is the prompt as it stands."""
    instruction, history = item["instruction"], item.get("history") or []
    config = {key: value for key, value in item.items() if key not in ("instruction", "history", *_WORK)}
    if not isinstance(instruction, str):
        raise InvalidRequestError(f"instruction must be text, got {instruction!r}", param="instruction")
    content: dict[str, Any] = {"kind": "text", "value": instruction}
    if history:
        from byzerllm import conversation

        messages = conversation.messages([*history, {"role": "user", "content": instruction}])
        content = {"kind": "messages", "value": conversation.for_engine(messages)}
    return llm._request(model, content, config)
