"""Response classes: answers that are objects of a program's class."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from byzerllm import enforcing, formats
from byzerllm.errors import InvalidRequestError, TooLargeError
from byzerllm.schema import reader, signature
from byzerllm.schema.shape import Shape
from byzerllm.stepping import Ask, Steps
from byzerllm.types import LLMClassResponse, LLMResponse

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

Item = dict[str, Any]

ATTEMPTS = 3
"""How often a model is asked at most, until its answer fits the class."""

_AGAIN = "This does not fit: {problem}\nWrite the whole JSON again, corrected, and nothing else."
_CUT = "the answer was cut at its token limit; raise max_length"
_COUNTED = ("input_tokens_count", "generated_tokens_count", "time_cost")


def steps(
    llm: "ByzerLLM", ask: Ask, history: list[Item], response_class: Any, after_chat: bool
) -> Steps[list[Any]]:
    """A chat whose answers are objects of a class; with `after_chat` a second turn makes one of the first answer."""
    shape = Shape.of(response_class)
    if after_chat and not ask.only_return_prompt:
        return (yield from _after_chat(llm, ask, history, response_class, shape))
    if after_chat:
        prompts = yield from llm._ask(ask, history)
        return [_response(prompt, prompt, "Only return prompt") for prompt in prompts]
    sys = "sys_" if ask.with_abilities else ""
    write = getattr(llm, f"mapping_{sys}response_class_format_func").get(ask.model)
    default = formats.sys_response_class_format if ask.with_abilities else None

    def prompted(enforced: bool) -> list[Item]:
        chosen = write or default
        if chosen is None:
            # An example in the prompt is what small models repeat; where JSON is enforced, none is needed.
            chosen = formats.enforced_class_format if enforced else formats.response_class_format
        return [*history[:-1], {**history[-1], "content": chosen(history[-1]["content"], cls=response_class)}]

    if ask.only_return_prompt:
        prompts = yield from llm._ask(ask, prompted("format" not in llm._lacking(ask.model)))
        return [_response(prompt, prompt, "Only return prompt") for prompt in prompts]
    return (yield from _until_it_fits(llm, ask, prompted, shape, []))


def _after_chat(
    llm: "ByzerLLM", ask: Ask, history: list[Item], response_class: Any, shape: Shape
) -> Steps[list[Any]]:
    """A free answer first, and a second turn that puts it into the class."""
    spent = (yield from llm._ask(ask, history))[:1]
    sys = "sys_" if ask.with_abilities else ""
    write = getattr(llm, f"mapping_{sys}response_class_format_after_chat_func").get(ask.model)
    request = (write or formats.response_class_format_after_chat)(response_class)
    turns = [*history, *_turn(spent[0].output, request)]
    return (yield from _until_it_fits(llm, ask, lambda enforced: turns, shape, spent))


def _until_it_fits(
    llm: "ByzerLLM",
    ask: Ask,
    prompted: Callable[[bool], list[Item]],
    shape: Shape,
    spent: list[LLMResponse],
) -> Steps[list[LLMClassResponse]]:
    found: LLMClassResponse | None = None
    turns: list[Item] = []

    def asked(enforced: bool) -> list[Item]:
        return [*prompted(enforced), *turns]

    for attempt in range(1, ATTEMPTS + 1):
        try:
            responses = yield from enforcing.steps(llm, ask, asked, shape.enforced)
        except TooLargeError:
            # There is no room to ask again; the first question itself is the caller's to shorten.
            if found is None:
                raise
            break
        if len(responses) != 1:
            return [executed(response, shape) for response in responses]
        spent.append(responses[0])
        found = executed(responses[0], shape)
        found.metadata["attempts"] = attempt
        if not found.metadata["reason"] or responses[0].metadata.get("finish_reason") == "length":
            break
        turns += _turn(responses[0].output, _AGAIN.format(problem=found.metadata["reason"]))
    assert found is not None
    _count(found.response, spent)
    return [found]


def _turn(answer: Any, request: str) -> list[Item]:
    return [{"role": "assistant", "content": str(answer)}, {"role": "user", "content": request}]


def _count(response: LLMResponse, spent: Sequence[LLMResponse]) -> None:
    """Puts what all questions cost into the answer's metadata."""
    if len(spent) < 2:
        return
    for key in _COUNTED:
        known = [one.metadata[key] for one in spent if isinstance(one.metadata.get(key), (int, float))]
        if known:
            response.metadata[key] = sum(known)
    if response.metadata.get("time_cost") and "generated_tokens_count" in response.metadata:
        seconds = response.metadata["time_cost"] / 1000
        response.metadata["speed"] = response.metadata["generated_tokens_count"] / seconds


def executed(response: LLMResponse, shape: Shape) -> LLMClassResponse:
    """The object in an answer, or the reason why there is none."""
    cut = response.metadata.get("finish_reason") == "length"
    candidates = reader.documents(str(response.output), closed=not cut)
    if not candidates:
        return _response(response, None, _CUT if cut else reader.NO_JSON)
    reason = ""
    for candidate in reversed(candidates):
        try:
            return _response(response, shape.value(candidate), "")
        except ValueError as error:
            reason = reason or str(error)
        except Exception as error:  # noqa: BLE001 - a program's validators may raise anything
            reason = reason or f"{type(error).__name__}: {error}"
    return _response(response, None, reason)


def _response(response: LLMResponse, value: Any, reason: str) -> LLMClassResponse:
    # `resason` is how Byzer-LLM's README reads it.
    return LLMClassResponse(response=response, value=value, metadata={"reason": reason, "resason": reason})


def decorator(
    llm: "ByzerLLM", instruction: str | None, model: str | None, verbose: bool | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`ByzerLLM.response`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = signature.parameters_of(function)
        hints = signature.hints_of(function)
        if len(parameters) != 1 or hints.get(parameters[0].name, str) is not str:
            raise InvalidRequestError(
                "response function should have only one parameter which type should be string"
            )
        wanted = hints.get("return")
        if not inspect.isclass(wanted) or not hasattr(wanted, "parse_obj"):
            raise InvalidRequestError("impl function should return a pydantic model")

        def conversation(text: str) -> list[Item]:
            system = [{"role": "system", "content": instruction}] if instruction else []
            return [*system, {"role": "user", "content": text}]

        def value(found: list[LLMClassResponse]) -> Any:
            if verbose if verbose is not None else llm.verbose:
                print(f"{signature.name_of(function)}: {found[0].response.output}", flush=True)
            return found[0].value

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def ask_later(text: str) -> Any:
                return value(await llm.async_chat_oai(conversation(text), response_class=wanted, model=model))

            return ask_later

        @functools.wraps(function)
        def ask(text: str) -> Any:
            return value(llm.chat_oai(conversation(text), response_class=wanted, model=model))

        return ask

    return decorate
