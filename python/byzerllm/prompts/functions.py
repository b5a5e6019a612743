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
        """Runs with this client.

        Args:
            llm: a client, the name of a deployment, or for methods a function like `lambda self: self.llm`.

        Example:
            >>> capital.with_llm(llm)("France")
        """
        self._choices.llm = llm
        return self

    def options(self: Self, options: Mapping[str, Any]) -> Self:
        """Adds arguments of the chat; later ones win.

        Args:
            options: arguments of `chat_oai` or `stream_chat_oai`, such as `model` and `llm_config`.

        Example:
            >>> capital.options({"llm_config": {"temperature": 0}})("France")
        """
        self._choices.options = {**self._choices.options, **options}
        return self

    def with_response_markers(
        self: Self,
        response_markers: Sequence[str] | None = None,
        response_markers_template: str | None = None,
    ) -> Self:
        """Asks for the answer between two markers, and for more while the second is missing (see
        `with_max_turns`).

        Args:
            response_markers: the two; `<RESPONSE>` and `</RESPONSE>` unless given.
            response_markers_template: what the model is told, with the variables `RESPONSE_START` and
                `RESPONSE_END`.

        Raises:
            InvalidRequestError: the markers are not two texts.

        Example:
            >>> essay.with_response_markers(["<<", ">>"]).with_max_turns(3)("rain")
        """
        self._choices.markers = Markers.of(response_markers, response_markers_template)
        return self

    def with_auto_remove_response_markers(self: Self, auto_remove: bool) -> Self:
        """Whether the answer is given without its markers, which is the default.

        Args:
            auto_remove: `False` leaves them.

        Example:
            >>> essay.with_response_markers().with_auto_remove_response_markers(False)("rain")
        """
        self._choices.auto_remove = bool(auto_remove)
        return self

    def with_max_turns(self: Self, max_turns: int) -> Self:
        """Limits the turns of an answer between markers.

        Args:
            max_turns: turns, at least 1; 10 unless chosen.

        Raises:
            InvalidRequestError: it is no such number.

        Example:
            >>> essay.with_response_markers().with_max_turns(3)("rain")
        """
        if not isinstance(max_turns, int) or isinstance(max_turns, bool) or max_turns < 1:
            raise InvalidRequestError(f"max_turns must be at least 1, got {max_turns!r}", param="max_turns")
        self._choices.max_turns = max_turns
        return self

    def with_continue_prompt(self: Self, prompt: str) -> Self:
        """What the user says to get the next part of an answer between markers.

        Args:
            prompt: the words.

        Example:
            >>> essay.with_response_markers().with_continue_prompt("Go on where you stopped.")("rain")
        """
        self._choices.continue_prompt = prompt
        return self

    def with_extractor(self: Self, func: Callable[[str], Any]) -> Self:
        """Gives what a function makes of the text. Streams and classes do not pass through it.

        Args:
            func: takes the text of the answer.

        Example:
            >>> capital.with_extractor(str.upper)("France")
            'THE CAPITAL OF FRANCE IS PARIS.'
        """
        self._choices.extractor = func
        return self

    def with_stop_suffix_list(self: Self, stop_suffix_list: Sequence[str]) -> Self:
        """Ends the answer at the first of these texts.

        Args:
            stop_suffix_list: the texts; they are not part of the answer.

        Example:
            >>> capital.with_stop_suffix_list(["."])("France")
            'The capital of France is Paris'
        """
        config = {**self._choices.options.get("llm_config", {}), "gen.stop": list(stop_suffix_list)}
        return self.options({"llm_config": config})

    def with_return_type(self: Self, model: Any) -> Self:
        """Reads the text as JSON of a class. A run whose answer is none raises `UpstreamError`.

        Args:
            model: the class, a pydantic one or another type.

        Example:
            >>> story.with_return_type(Story)("a brave rabbit").title
            'The Brave Rabbit'
        """
        self._choices.return_type = model
        return self

    def with_return_prefix(self: Self, prefix: str) -> Self:
        """Puts words into the model's mouth: the conversation ends with them, and the result starts with
        them.

        Args:
            prefix: the words.

        Example:
            >>> capital.with_return_prefix("It is")("France")
        """
        self._choices.return_prefix = prefix
        return self

    def with_meta(self: Self, meta_holder: MetaHolder) -> Self:
        """Tells an object what is known about the answer.

        Args:
            meta_holder: is filled by the run.

        Example:
            >>> holder = MetaHolder()
            >>> capital.with_meta(holder)("France")
            >>> holder.get_meta()["generated_tokens_count"]
            8
        """
        self._choices.meta = meta_holder
        return self

    def with_conversation(self: Self, conversation: Sequence[Any]) -> Self:
        """Messages that come before the prompt.

        Args:
            conversation: messages with roles.

        Example:
            >>> capital.with_conversation([{"role": "system", "content": "Answer in one word."}])("France")
        """
        self._choices.conversation = list(conversation)
        return self


class PromptRunner(_Chooser, Generic[P, R]):
    """A prompt function, or a method of one object, ready to run.

    Args:
        func: the function.
        choices: what was chosen.
        instance: the object whose method it is.

    Example:
        >>> capital.prompt("France")
        'What is the capital of France?'
    """

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
        """The prompt: the docstring with its variables filled in.

        Args:
            args, kwargs: the function's own arguments.

        Raises:
            TypeError: the arguments are not the function's, or it returns neither `None` nor a dictionary.
            InvalidRequestError: it is a coroutine function, which can only be awaited.

        Example:
            >>> capital.prompt("France")
            'What is the capital of France?'
        """
        return text_of(self._func, self._all(args), kwargs)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the model answers, as the return annotation says.

        Args:
            args, kwargs: the function's own arguments.

        Raises:
            InvalidRequestError: no client was chosen, or the return annotation is none that can be answered.
            UpstreamError: the answer is no JSON of the class that `with_return_type` chose.
            What `ByzerLLM.chat_oai` raises.

        Example:
            >>> capital.run("France")
            'The capital of France is Paris.'
        """
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
    """A decorated function. What its `with_…` methods choose holds until `reset`; methods start afresh each
    time.

    Args:
        func: the function.
        choices: what the decoration chose.

    Raises:
        InvalidRequestError: `func` cannot be called; the decorator needs its parentheses.

    Example:
        >>> capital.with_llm(llm)("France")
        'The capital of France is Paris.'
        >>> capital.reset()("France")
        'What is the capital of France?'
    """

    def __init__(self, func: Callable[P, R], choices: Choices) -> None:
        if not callable(func):
            raise InvalidRequestError(
                f"a prompt function must be a function, got {func!r}; write @byzerllm.prompt() with its parentheses"
            )
        super().__init__(func, choices)
        self._made_with = replace(choices)
        functools.update_wrapper(self, func)

    def reset(self) -> "PromptFunction[P, R]":
        """Forgets what was chosen since the decoration.

        Example:
            >>> capital.reset()("France")
        """
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
    """A call that waits: choose, then `run()` it or look at its `prompt()`.

    Args:
        runner: the function.
        args, kwargs: the arguments of the call.

    Example:
        >>> lazy_capital("France").with_llm(llm).run()
        'The capital of France is Paris.'
    """

    def __init__(
        self, runner: PromptRunner[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._runner = runner
        self._choices = runner._choices
        self._args, self._kwargs = args, kwargs

    def prompt(self) -> str:
        """The prompt: the docstring with its variables filled in.

        Raises:
            What `PromptRunner.prompt` raises.

        Example:
            >>> lazy_capital("France").prompt()
            'What is the capital of France?'
        """
        return self._runner.prompt(*self._args, **self._kwargs)

    def run(self) -> Any:
        """What the model answers, as the return annotation says.

        Raises:
            What `PromptRunner.run` raises.

        Example:
            >>> lazy_capital("France").with_llm(llm).run()
            'The capital of France is Paris.'
        """
        return self._runner.run(*self._args, **self._kwargs)


def prompt(
    llm: Any = None, render: str = "jinja2", check_result: bool = False, options: Mapping[str, Any] = {}
) -> Callable[[Callable[P, R]], PromptFunction[P, R]]:
    """Makes a prompt of a function or a method; write it with parentheses: `@byzerllm.prompt()`.

    Args:
        llm: a client, the name of a deployment, or for methods a function like `lambda self: self.llm`;
            without it a call returns the prompt, and `with_llm` chooses one.
        render: for programs that name it: there is one dialect, Jinja2's.
        check_result: logs a warning when an answer does not become its class.
        options: arguments of `chat_oai`.

    Raises:
        InvalidRequestError: `render` names another dialect, or what is decorated is no function.

    Example:
        >>> @byzerllm.prompt(llm)
        ... def capital(country: str) -> str:
        ...     '''What is the capital of {{ country }}?'''
        >>> capital("France")
        'The capital of France is Paris.'
    """
    _check_render(render)

    def decorate(func: Callable[P, R]) -> PromptFunction[P, R]:
        return PromptFunction(func, Choices(llm=llm, check_result=check_result, options=dict(options)))

    return decorate


def prompt_lazy(
    llm: Any = None, render: str = "jinja2", check_result: bool = False, options: Mapping[str, Any] = {}
) -> Callable[[Callable[P, Any]], Callable[P, LazyPrompt]]:
    """Like `prompt`, but a call only remembers its arguments.

    Args:
        llm, render, check_result, options: as in `prompt`.

    Raises:
        InvalidRequestError: `render` names another dialect.

    Example:
        >>> @byzerllm.prompt_lazy()
        ... def lazy_capital(country: str) -> str:
        ...     '''What is the capital of {{ country }}?'''
        >>> lazy_capital("France").with_llm(llm).run()
        'The capital of France is Paris.'
    """
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
