"""Runs a rendered prompt: turns with a model, markers, streams. The blocking and the async forms share every step."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from byzerllm.errors import InvalidRequestError, UpstreamError
from byzerllm.prompts.markers import CONTINUE, Markers, Unwrapped
from byzerllm.prompts.meta import MetaHolder, summed
from byzerllm.prompts.rendering import format_prompt_jinja2

_STREAMS = (Generator, Iterator)
_STREAMS_LATER = (AsyncGenerator, AsyncIterator)
_MAX_TURNS = 10


@dataclass
class Choices:
    """What the `with_…` methods of a prompt function choose."""

    llm: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    check_result: bool = False
    markers: Markers | None = None
    auto_remove: bool = True
    max_turns: int = _MAX_TURNS
    continue_prompt: str = CONTINUE
    extractor: Callable[[str], Any] | None = None
    return_type: Any = None
    return_prefix: str = ""
    meta: MetaHolder | None = None
    conversation: Sequence[Any] = ()
    below: str = ""
    """Text below the prompt."""
    whole: bool = False
    """Whether the list of responses is wanted instead of the answer."""


def variables(func: Callable[..., Any], arguments: dict[str, Any], made: Any) -> dict[str, Any]:
    """A template's variables: the arguments, and over them the dictionary that the function returned."""
    if made:
        if not isinstance(made, Mapping):
            raise TypeError(f"Return value of {func.__name__} should be a dict")
        arguments = {**arguments, **made}
    arguments.pop("self", None)
    return arguments


def bound(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults included; those of `**kwargs` count as named."""
    call = inspect.signature(func).bind(*args, **kwargs)
    call.apply_defaults()
    found: dict[str, Any] = {}
    for name, parameter in call.signature.parameters.items():
        value = call.arguments[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


def text_of(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The prompt of a call."""
    made = func(*args, **kwargs)
    if inspect.isawaitable(made):
        getattr(made, "close", bool)()
        raise InvalidRequestError(f"{func.__name__} is a coroutine function; await its call")
    return format_prompt_jinja2(func, **variables(func, bound(func, args, kwargs), made))


async def text_of_later(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The prompt of a call of a coroutine function."""
    made = func(*args, **kwargs)
    if inspect.isawaitable(made):
        made = await made
    return format_prompt_jinja2(func, **variables(func, bound(func, args, kwargs), made))


def client(llm: Any, instance: Any) -> Any:
    """The client that runs a prompt: itself, one for a model's name, or what a function of the instance returns."""
    if isinstance(llm, str):
        from byzerllm.client import ByzerLLM

        return ByzerLLM.from_default_model(llm)
    if hasattr(llm, "chat_oai"):
        return llm
    if callable(llm) and not isinstance(llm, type):
        found = llm() if instance is None else llm(instance)
        if isinstance(found, str) or hasattr(found, "chat_oai"):
            return client(found, None)
    raise InvalidRequestError(
        f"llm must be a client, the name of a model, or for methods a function like `lambda self: self.llm`, got {llm!r}",
        param="llm",
    )


def returned(func: Callable[..., Any]) -> Any:
    """The return annotation, resolved when it was written as text."""
    annotation = inspect.signature(func).return_annotation
    if isinstance(annotation, str):
        try:
            annotation = get_type_hints(func).get("return", annotation)
        except NameError as error:
            raise InvalidRequestError(
                f"{func.__name__}: the return annotation {annotation!r} cannot be resolved: {error}"
            ) from None
    return annotation


class Run:
    """One run of a prompt."""

    def __init__(self, func: Callable[..., Any], prompt: str, choices: Choices, instance: Any) -> None:
        self._choices = choices
        self._llm = client(choices.llm, instance)
        annotation = returned(func)
        streamed = get_args(annotation)[:1] == (str,)
        self.streams = streamed and get_origin(annotation) in _STREAMS
        self.streams_later = streamed and get_origin(annotation) in _STREAMS_LATER
        self._class = None
        if not (self.streams or self.streams_later or annotation is str):
            if not _is_class(annotation):
                raise InvalidRequestError(f"{func.__name__} should return a pydantic model or string")
            if choices.markers is not None:
                raise InvalidRequestError(
                    f"{func.__name__}: response markers are for prompts that return text; leave them out or return str"
                )
            self._class = annotation
        self._name = func.__name__
        self._options = dict(choices.options)
        if choices.below:
            prompt = f"{prompt}\n\n{choices.below}"
        if choices.markers is not None:
            prompt = choices.markers.request(prompt)
        self._conversation: list[Any] = [*choices.conversation, {"role": "user", "content": prompt}]
        if choices.return_prefix:
            self._conversation.append({"role": "assistant", "content": choices.return_prefix})
        self._metas: list[dict[str, Any]] = []
        self._streamed: Any = None

    # Whole answers.

    def chat(self) -> Any:
        """The answer, waiting for it."""
        steps = self._turns()
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as done:
                return done.value
            answer = self._llm.chat_oai(**request)

    async def chat_later(self) -> Any:
        """The answer, without blocking the event loop."""
        if not hasattr(self._llm, "async_chat_oai"):
            raise InvalidRequestError(
                f"{type(self._llm).__name__} has no async_chat_oai; use a blocking prompt function"
            )
        steps = self._turns()
        answer = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as done:
                return done.value
            answer = await self._llm.async_chat_oai(**request)

    def _turns(self) -> Generator[dict[str, Any], Any, Any]:
        """Yields requests, is sent their answers, and returns what the prompt function returns."""
        choices, markers = self._choices, self._choices.markers
        request = {**self._options, "conversations": self._conversation}
        if self._class is not None:
            request["response_class"] = self._class
        answers = yield request
        self._note(answers[0])
        if choices.whole:
            return answers
        if self._class is not None:
            return self._checked(answers[0].value)
        text = str(answers[0].output)
        turns = 1
        while markers is not None and markers.end not in text and turns < choices.max_turns:
            answers = yield {**self._options, "conversations": self._continued(text)}
            self._note(answers[0])
            new = str(answers[0].output)
            if not new:
                break
            text += new
            turns += 1
        return self._finished(text)

    def _continued(self, text: str) -> list[Any]:
        return [
            *self._conversation,
            {"role": "assistant", "content": text},
            {"role": "user", "content": self._choices.continue_prompt},
        ]

    def _note(self, answer: Any) -> None:
        metadata = getattr(answer, "response", answer).metadata
        self._metas.append(dict(metadata))
        if self._choices.meta is not None:
            self._choices.meta.meta = summed(self._metas)

    def _finished(self, text: str) -> Any:
        choices = self._choices
        if choices.markers is not None and choices.auto_remove:
            text = choices.markers.within(text)
        text = choices.return_prefix + text
        if choices.extractor is not None:
            found = choices.extractor(text)
            if not isinstance(found, str) or choices.return_type is None:
                return found
            text = found
        if choices.return_type is not None:
            return self._checked(_parsed(text, choices.return_type))
        return text

    def _checked(self, value: Any) -> Any:
        if value is None and self._choices.check_result:
            import logging

            logging.getLogger("byzerllm").warning("%s: the answer could not be read as its class", self._name)
        return value

    # Streams.

    def stream(self) -> Iterator[str]:
        """The new pieces of the answer. Closing the generator stops the work."""
        progress = _Progress(self._choices)
        if self._choices.return_prefix:
            yield self._choices.return_prefix
        while True:
            items = self._llm.stream_chat_oai(**self._stream_request(progress))
            try:
                for text, meta in items:
                    self._note_stream(meta)
                    piece = progress.feed(text)
                    if piece:
                        yield piece
                self._note_end()
            finally:
                items.close()
            if progress.complete():
                break
        if rest := progress.rest():
            yield rest

    async def stream_later(self) -> AsyncIterator[str]:
        """`stream` for an event loop, which it never blocks."""
        progress = _Progress(self._choices)
        if self._choices.return_prefix:
            yield self._choices.return_prefix
        while True:
            items = self._llm.async_stream_chat_oai(**self._stream_request(progress))
            try:
                async for text, meta in items:
                    self._note_stream(meta)
                    piece = progress.feed(text)
                    if piece:
                        yield piece
                self._note_end()
            finally:
                await items.aclose()
            if progress.complete():
                break
        if rest := progress.rest():
            yield rest

    def _stream_request(self, progress: "_Progress") -> dict[str, Any]:
        self._metas.append({})
        self._streamed = None
        conversation = self._continued(progress.text) if progress.turns else self._conversation
        return {**self._options, "conversations": conversation, "delta_mode": True}

    def _note_stream(self, meta: Any) -> None:
        self._streamed = meta
        self._note_end()

    def _note_end(self) -> None:
        """Notes what is known of a stream. Token counts come behind its last item, in the object of all items."""
        if self._streamed is not None:
            self._metas[-1] = dict(vars(self._streamed))
        if self._choices.meta is not None:
            self._choices.meta.meta = summed(self._metas)


class _Progress:
    """What of a streamed answer has come, over its turns."""

    def __init__(self, choices: Choices) -> None:
        self.text = ""
        self.turns = 0
        self._choices = choices
        self._unwrapped = Unwrapped(choices.markers) if choices.markers and choices.auto_remove else None
        self._turn = ""

    def feed(self, piece: str) -> str:
        """What to give out for a new piece."""
        self._turn += piece
        return piece if self._unwrapped is None else self._unwrapped.feed(piece)

    def complete(self) -> bool:
        """Ends a turn; whether it was the last one."""
        self.text += self._turn
        self.turns += 1
        empty, self._turn = not self._turn, ""
        markers = self._choices.markers
        return markers is None or markers.end in self.text or empty or self.turns >= self._choices.max_turns

    def rest(self) -> str:
        """What was held back because a marker could have come."""
        return "" if self._unwrapped is None else self._unwrapped.rest()


def _is_class(annotation: Any) -> bool:
    """Whether answers can be objects of it: a pydantic class, a dataclass, or a list of those."""
    if get_origin(annotation) is list:
        return all(_is_class(item) for item in get_args(annotation))
    if not isinstance(annotation, type):
        return False
    return any(hasattr(annotation, name) for name in ("model_validate", "parse_obj", "__dataclass_fields__"))


def _parsed(text: str, wanted: Any) -> Any:
    """The object that stands as JSON in an answer."""
    from byzerllm.schema import reader
    from byzerllm.schema.shape import Shape

    try:
        return Shape.of(wanted).value(reader.last(text))
    except ValueError as error:
        name = getattr(wanted, "__name__", str(wanted))
        raise UpstreamError(f"the model's answer cannot be read as {name}: {error}") from None
