"""Asks for JSON that a schema accepts: enforced while decoding where the place of the model can, else only asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.notices import say_once
from byzerllm.schema.enforceable import Schema
from byzerllm.stepping import Ask, Steps
from byzerllm.types import LLMResponse

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

OF_FORMATS = ("response_format", "format")
"""The parameter that a refusal of a format names."""


def steps(
    llm: "ByzerLLM",
    ask: Ask,
    history: Callable[[bool], list[dict[str, Any]]],
    schema: Callable[[bool], Schema],
) -> Steps[list[LLMResponse]]:
    """An answer of the schema. `history(True)` is the conversation where it is enforced, `history(False)` the one that
    has to explain it; `schema(True)` is the schema without limits on numbers and texts.
    """
    lacking = llm._lacking(ask.model)
    for plain in (False, True):
        if "format" in lacking:
            break
        request = {"format": {"kind": "json_schema", "value": schema(plain)}}
        try:
            return (yield from llm._ask(ask, history(True), request))
        except UnsupportedError as error:
            if error.param not in OF_FORMATS:
                raise
            lacking.add("format")
        except InvalidRequestError as error:
            if error.param not in OF_FORMATS:
                raise
            if plain:
                say_once(f"{ask.model}: the answer's JSON is checked but not enforced: {error}")
    return (yield from llm._ask(ask, history(False)))
