"""`@byzerllm.prompt`: the docstring is the prompt, the return annotation says what comes back.

    @byzerllm.prompt(llm)
    def translate(text: str, language: str) -> str:
        '''
        Translate into {{ language }}: {{ text }}
        '''

    translate("Good morning", "French")

A function that returns a dictionary adds variables to its arguments. `-> str` gives the answer's text, a pydantic class
an object of it, `Generator[str, None, None]` the new pieces as they come. Coroutine functions (`async def`) are awaited,
and `AsyncGenerator[str, None]` streams in an event loop.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar, overload

from byzerllm.errors import InvalidRequestError
from byzerllm.prompts.markers import Markers
from byzerllm.prompts.meta import MetaHolder
from byzerllm.prompts.running import Choices, Run, text_of, text_of_later

P = ParamSpec("P")
R = TypeVar("R")
Self = TypeVar("Self", bound="_Chooser")


class _Chooser:
    """The `with_…` methods: each changes what the next runs do and returns the same object."""

    _choices: Choices

    def with_llm(self: Self, llm: Any) -> Self:
        """Runs with this client, the deployment of this name, or for methods what `lambda self: …` returns."""
        self._choices.llm = llm
        return self

    def options(self: Self, options: Mapping[str, Any]) -> Self:
        """Adds arguments of `chat_oai` or `stream_chat_oai`, such as `model` and `llm_config`; later ones win."""
        self._choices.options = {**self._choices.options, **options}
        return self

    def with_response_markers(
        self: Self,
        response_markers: Sequence[str] | None = None,
        response_markers_template: str | None = None,
    ) -> Self:
        """Asks for the answer between two markers, and for more while the second is missing (see `with_max_turns`).

        The markers are `<RESPONSE>` and `</RESPONSE>` unless given. The template is what the model is told, with the
        variables `RESPONSE_START` and `RESPONSE_END`.
        """
        self._choices.markers = Markers.of(response_markers, response_markers_template)
        return self

    def with_auto_remove_response_markers(self: Self, auto_remove: bool) -> Self:
        """Whether the answer is given without its markers, which is the default."""
        self._choices.auto_remove = bool(auto_remove)
        return self

    def with_max_turns(self: Self, max_turns: int) -> Self:
        """How many turns an answer between markers may take; 10 unless chosen."""
        if not isinstance(max_turns, int) or isinstance(max_turns, bool) or max_turns < 1:
            raise InvalidRequestError(f"max_turns must be at least 1, got {max_turns!r}", param="max_turns")
        self._choices.max_turns = max_turns
        return self

    def with_continue_prompt(self: Self, prompt: str) -> Self:
        """What the user says to get the next part of an answer between markers."""
        self._choices.continue_prompt = prompt
        return self

    def with_extractor(self: Self, func: Callable[[str], Any]) -> Self:
        """Gives what this function makes of the text. Streams and classes do not pass through it."""
        self._choices.extractor = func
        return self

    def with_stop_suffix_list(self: Self, stop_suffix_list: Sequence[str]) -> Self:
        """Ends the answer at the first of these texts."""
        config = {**self._choices.options.get("llm_config", {}), "gen.stop": list(stop_suffix_list)}
        return self.options({"llm_config": config})

    def with_return_type(self: Self, model: Any) -> Self:
        """Reads the text as JSON of this class. An answer that is none raises `UpstreamError`."""
        self._choices.return_type = model
        return self

    def with_return_prefix(self: Self, prefix: str) -> Self:
        """Puts these words into the model's mouth: the conversation ends with them, and the result starts with them."""
        self._choices.return_prefix = prefix
        return self

    def with_meta(self: Self, meta_holder: MetaHolder) -> Self:
        """Tells this object what is known about the answer."""
        self._choices.meta = meta_holder
        return self

    def with_conversation(self: Self, conversation: Sequence[Any]) -> Self:
        """Messages that come before the prompt."""
        self._choices.conversation = list(conversation)
        return self


class PromptRunner(_Chooser, Generic[P, R]):
    """A prompt function, or a method of one object, ready to run."""

    def __init__(self, func: Callable[..., R], choices: Choices, instance: Any = None) -> None:
        self._func = func
        self._choices = choices
        self._instance = instance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs with the client that was chosen; without one, returns the prompt."""
        if self._choices.llm is None:
            text: Any = self.prompt(*args, **kwargs)
            return text  # type: ignore[no-any-return]
        return self.run(*args, **kwargs)

    def prompt(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The prompt: the docstring with its variables filled in."""
        return text_of(self._func, self._all(args), kwargs)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the model answers, as the return annotation says."""
        result: Any
        if inspect.iscoroutinefunction(self._func):
            result = self._run_later(self._all(args), kwargs)
            return result  # type: ignore[no-any-return]
        run = self._prepared(self.prompt(*args, **kwargs))
        if run.streams:
            result = run.stream()
        elif run.streams_later:
            result = run.stream_later()
        else:
            result = run.chat()
        return result  # type: ignore[no-any-return]

    async def _run_later(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        run = self._prepared(await text_of_later(self._func, args, kwargs))
        return run.stream_later() if run.streams_later else await run.chat_later()

    def _prepared(self, prompt: str) -> Run:
        if self._choices.llm is None:
            name = self._func.__name__
            raise InvalidRequestError(
                f"{name} has no model; choose one with {name}.with_llm(llm)", param="llm"
            )
        # What is chosen later is for later runs.
        return Run(self._func, prompt, replace(self._choices), self._instance)

    def _all(self, args: Sequence[Any]) -> Sequence[Any]:
        return args if self._instance is None else (self._instance, *args)


class PromptFunction(PromptRunner[P, R]):
    """A decorated function. What its `with_…` methods choose holds until `reset`; methods start afresh each time."""

    def __init__(self, func: Callable[P, R], choices: Choices) -> None:
        if not callable(func):
            raise InvalidRequestError(
                f"a prompt function must be a function, got {func!r}; write @byzerllm.prompt() with its parentheses"
            )
        super().__init__(func, choices)
        self._made_with = replace(choices)
        functools.update_wrapper(self, func)

    def reset(self) -> "PromptFunction[P, R]":
        """Forgets what was chosen since the decoration."""
        self._choices = replace(self._made_with)
        return self

    @overload
    def __get__(self, instance: None, owner: Any) -> "PromptFunction[P, R]": ...
    @overload
    def __get__(self, instance: object, owner: Any) -> PromptRunner[..., R]: ...
    def __get__(self, instance: object, owner: Any) -> "PromptRunner[..., R]":
        if instance is None:
            return self
        return PromptRunner(self._func, replace(self._choices), instance)


class LazyPrompt(_Chooser):
    """A call that waits: choose, then `run()` it or look at its `prompt()`."""

    def __init__(
        self, runner: PromptRunner[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._runner = runner
        self._choices = runner._choices
        self._args, self._kwargs = args, kwargs

    def prompt(self) -> str:
        """The prompt: the docstring with its variables filled in."""
        return self._runner.prompt(*self._args, **self._kwargs)

    def run(self) -> Any:
        """What the model answers, as the return annotation says."""
        return self._runner.run(*self._args, **self._kwargs)


def prompt(
    llm: Any = None, render: str = "jinja2", check_result: bool = False, options: Mapping[str, Any] = {}
) -> Callable[[Callable[P, R]], PromptFunction[P, R]]:
    """Makes a prompt of a function or a method; write it with parentheses: `@byzerllm.prompt()`.

    `llm` is a client, the name of a deployment, or for methods a function like `lambda self: self.llm`; without it a
    call returns the prompt, and `with_llm` chooses one. `check_result` logs a warning when an answer does not become
    its class. `options` are arguments of `chat_oai`. `render` is for programs that name it: there is one dialect,
    Jinja2's.
    """
    _check_render(render)

    def decorate(func: Callable[P, R]) -> PromptFunction[P, R]:
        return PromptFunction(func, Choices(llm=llm, check_result=check_result, options=dict(options)))

    return decorate


def prompt_lazy(
    llm: Any = None, render: str = "jinja2", check_result: bool = False, options: Mapping[str, Any] = {}
) -> Callable[[Callable[P, Any]], Callable[P, LazyPrompt]]:
    """Like `prompt`, but a call only remembers its arguments: `hello("you").with_llm(llm).run()`."""
    _check_render(render)

    def decorate(func: Callable[P, Any]) -> Callable[P, LazyPrompt]:
        parameters = list(inspect.signature(func).parameters)
        is_method = parameters[:1] == ["self"]

        @functools.wraps(func)
        def call(*args: P.args, **kwargs: P.kwargs) -> LazyPrompt:
            choices = Choices(llm=llm, check_result=check_result, options=dict(options))
            instance, rest = (args[0], args[1:]) if is_method and args else (None, args)
            return LazyPrompt(PromptRunner(func, choices, instance), rest, kwargs)

        return call

    return decorate


def _check_render(render: str) -> None:
    if render not in ("jinja2", "jinja", "simple"):
        raise InvalidRequestError(f'render must be "jinja2", got {render!r}', param="render")
