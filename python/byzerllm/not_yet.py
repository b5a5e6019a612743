"""Methods of Byzer-LLM's client that this version does not have: each says so instead of being absent."""

from collections.abc import Callable
from typing import Any, NoReturn

from byzerllm.errors import UnsupportedError


def _not_yet(name: str, what: str) -> Callable[..., NoReturn]:
    def method(self: Any, *arguments: Any, **options: Any) -> NoReturn:
        raise UnsupportedError(f"ByzerLLM.{name}: {what} not supported by this version", param=name)

    method.__name__ = name
    method.__qualname__ = f"ByzerLLM.{name}"
    method.__doc__ = f"Raises `UnsupportedError`: {what} not supported by this version."
    return method


_EMBEDDINGS = "embeddings and reranking are"
_FUNCTIONS = "functions written by a model are"
_TRAINING = "training is"


class NotYet:
    """Raises `UnsupportedError` for what does not exist yet."""

    emb = _not_yet("emb", _EMBEDDINGS)
    emb_query = _not_yet("emb_query", _EMBEDDINGS)
    emb_rerank = _not_yet("emb_rerank", _EMBEDDINGS)
    impl = _not_yet("impl", _FUNCTIONS)
    execute_generate_func = _not_yet("execute_generate_func", _FUNCTIONS)
    clear_impl_cache = _not_yet("clear_impl_cache", _FUNCTIONS)
    response = _not_yet("response", "responses as pydantic objects are")
    execute_response_format = _not_yet("execute_response_format", "responses as pydantic objects are")
    execute_function_calling = _not_yet("execute_function_calling", "function calling is")
    prompt = _not_yet("prompt", "prompt functions are")
    abort = _not_yet(
        "abort", "requests by name (close a stream, cancel a task or set timeout_s to end one) are"
    )
    sft = _not_yet("sft", _TRAINING)
    merge_lora = _not_yet("merge_lora", _TRAINING)
    pretrain = _not_yet("pretrain", _TRAINING)
    raw_sft = _not_yet("raw_sft", _TRAINING)
    raw_pretrain = _not_yet("raw_pretrain", _TRAINING)
    raw_merge_lora = _not_yet("raw_merge_lora", _TRAINING)
    raw_deepspeed_to_huggingface = _not_yet("raw_deepspeed_to_huggingface", _TRAINING)
    apply_sql_func = _not_yet("apply_sql_func", "SQL is")
