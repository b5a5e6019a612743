"""Functions that a model writes: `@llm.impl()`, and `chat_oai(impl_func=…)`.

What is kept is the implementation, never a result: each call runs the code again, in a sandbox.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from byzerllm.errors import InvalidRequestError
from byzerllm.settings import Settings
from byzerllm.stepping import Ask, Steps, Work
from byzerllm.types import LLMClassResponse, LLMResponse

if TYPE_CHECKING:
    import os

    from byzerllm.client import ByzerLLM
    from byzerllm.implementations.execution import Sandbox
    from byzerllm.implementations.lock_file import LockFile

Self = TypeVar("Self", bound="Implementations")
T = TypeVar("T")
Stub = TypeVar("Stub", bound=Callable[..., Any])


def steps(
    llm: "ByzerLLM",
    ask: Ask,
    history: list[dict[str, Any]],
    func: Callable[..., Any] | str,
    execute: bool,
    params: Mapping[str, Any] | None,
    response_class: Any,
) -> Steps[list[Any]]:
    """What `chat_oai(impl_func=…)` does: answers with code, or with what the code returned."""
    from byzerllm.implementations import prompts
    from byzerllm.schema.signature import name_of

    if ask.with_abilities:
        mapping, default = llm.mapping_sys_impl_func_format_func, prompts.sys_function_impl_format
    else:
        mapping, default = llm.mapping_impl_func_format_func, prompts.function_impl_format
    format_prompt: Callable[..., str] = mapping.get(ask.model, default)
    prompt = format_prompt(history[-1]["content"], func, response_class)
    responses = yield from llm._ask(ask, [*history[:-1], {**history[-1], "content": prompt}])
    if not execute or ask.only_return_prompt:
        return list(responses)
    name = func if isinstance(func, str) else name_of(func)
    executed = []
    for response in responses:
        run = partial(llm.execute_generate_func, name, params, response, response_class)
        executed.append((yield Work(run)))
    return executed


class Implementations(Settings):
    """The part of `ByzerLLM` that has functions written."""

    _sandbox: "Sandbox | None" = None
    _impl_lock: "LockFile | None" = None
    _impl_offline = False

    if TYPE_CHECKING:

        def _do(self, steps: Steps[T]) -> T: ...
        async def _do_later(self, steps: Steps[T]) -> T: ...

    def impl(
        self,
        instruction: str | None = None,
        model: str | None = None,
        verbose: bool | None = None,
        skip_cache: bool = False,
        sandbox: "Sandbox | None" = None,
    ) -> Callable[[Stub], Stub]:
        """Has the model write the decorated function, whose docstring and annotations say what it does.

        The first call asks the model and keeps the code in `func_impl_cache`; every call runs it in the
        sandbox and returns an object of the class in the return annotation. An `async def` is written in the
        same way.

        Args:
            instruction: the question that this function is for, when it is for one.
            model: the model that writes it; the client's default otherwise, as it is now.
            verbose: prints the code and how many seconds a call took; the client's `verbose` otherwise.
            skip_cache: has it written anew at every call.
            sandbox: settings for this function, or `"none"`; what `setup_sandbox` chose otherwise.

        Raises:
            InvalidRequestError: `sandbox` is neither.
            ImplementationError: the model wrote no code, or the result is not of the class.
            SandboxError: the code raised, took too long or too much memory.
            SandboxUnavailableError: this system has no sandbox.

        Example:
            >>> @llm.impl()
            ... def add_one_day(current_day: Annotated[datetime, "a day"]) -> Time:
            ...     '''Returns the day after the given one.'''
        """
        if callable(instruction):
            return self.impl()(instruction)
        import inspect

        around = sys._getframe(1).f_locals
        llm = cast("ByzerLLM", self)
        from byzerllm.implementations.task import Task
        from byzerllm.sandbox import SandboxSettings

        if not (sandbox in (None, "none") or isinstance(sandbox, SandboxSettings)):
            raise InvalidRequestError('impl takes SandboxSettings or "none" as sandbox', param="sandbox")
        asked = model or self.default_model_name
        shown = self.verbose if verbose is None else verbose

        def decorate(func: Stub) -> Stub:
            task = Task(func, around, asked, instruction, skip_cache, shown, sandbox)
            if inspect.iscoroutinefunction(func):

                @wraps(func)
                async def awaited(*arguments: Any, **keywords: Any) -> Any:
                    return await self._do_later(task.call(llm, arguments, keywords))

                return cast(Stub, awaited)

            @wraps(func)
            def written(*arguments: Any, **keywords: Any) -> Any:
                return self._do(task.call(llm, arguments, keywords))

            return cast(Stub, written)

        return decorate

    def setup_sandbox(
        self: Self, sandbox: "Sandbox | Literal['process'] | None" = None, **limits: Any
    ) -> Self:
        """Chooses how code that a model wrote is run: in the sandbox, with limits of your own, or without
        one.

        Args:
            sandbox: `SandboxSettings`; `"process"` for the usual ones; `"none"` to run the code in this
                process with all its rights: only for models and questions that you trust like your own code.
            limits: single fields of `SandboxSettings` that change; `time_limit` is in seconds, the others in
                bytes.

        Raises:
            InvalidRequestError: `sandbox` is something else, or a limit is unknown or out of range.

        Example:
            >>> llm.setup_sandbox(time_limit=3, memory_bytes=256 << 20)
        """
        from dataclasses import replace

        from byzerllm.sandbox import SandboxSettings

        if sandbox in (None, "process"):
            known = self._sandbox if sandbox is None and self._sandbox != "none" else None
            try:
                self._sandbox = replace(known or SandboxSettings(), **limits)
            except TypeError as error:
                raise InvalidRequestError(f"setup_sandbox: {error}", param="limits") from None
            return self
        if limits or not (sandbox == "none" or isinstance(sandbox, SandboxSettings)):
            raise InvalidRequestError(
                'setup_sandbox takes "none", SandboxSettings, or limits by their names', param="sandbox"
            )
        self._sandbox = sandbox
        return self

    def setup_impl_lock(
        self: Self, path: "str | os.PathLike[str]" = "byzerllm.lock.toml", offline: bool = False
    ) -> Self:
        """Keeps what `impl` has written in a file for review, and takes it from there.

        Args:
            path: the file.
            offline: asks no model, ever: a function that is not in the file, or was changed since, raises
                `LockFileError`.

        Example:
            >>> llm.setup_impl_lock("byzerllm.lock.toml", offline=True)
        """
        from byzerllm.implementations.lock_file import LockFile

        self._impl_lock = LockFile(path)
        self._impl_offline = offline
        return self

    def clear_impl_cache(
        self: Self,
        model: str | None = None,
        full_func_name: str | None = None,
        instruction: str | None = None,
    ) -> Self:
        """Forgets implementations: all of them, those of a model, or those of a function. A lock file is left
        as it is.

        Args:
            model: the model that wrote them.
            full_func_name: the function, as `module.name`.
            instruction: what `impl` was given; a model together with a function needs it.

        Raises:
            InvalidRequestError: a model together with a function, without the instruction.

        Example:
            >>> llm.clear_impl_cache(full_func_name="__main__.add_one_day")
        """
        if model is not None and full_func_name is not None and instruction is None:
            raise InvalidRequestError("instruction is required", param="instruction")
        named = f"{instruction if instruction is not None else None}_{full_func_name}"
        for key in list(self.func_impl_cache):
            if model is not None:
                prefix = f"{model}_" if full_func_name is None else f"{model}_{named}"
                gone = key.startswith(prefix)
            elif full_func_name is not None:
                gone = key.endswith(f"_{named}" if instruction is not None else f"_{full_func_name}")
            else:
                gone = True
            if gone:
                self.func_impl_cache.pop(key, None)
        return self

    def execute_generate_func(
        self,
        func_name: str,
        impl_func_params: Mapping[str, Any] | None,
        response: LLMResponse,
        response_class: Any,
    ) -> LLMClassResponse:
        """Runs the code of an answer.

        `value` is an object of the response class; when it is `None`, `metadata["reason"]` says why.
        `metadata["raw_func"]` is the code and `metadata["func"]` its function, which runs in the sandbox as
        well.

        Args:
            func_name: its function of that name.
            impl_func_params: the arguments.
            response: the answer.
            response_class: what the result is to be.

        Raises:
            SandboxUnavailableError: this system has no sandbox.

        Example:
            >>> response = llm.chat_oai("Write it", impl_func=add_one_day, response_class=Time)[0]
            >>> llm.execute_generate_func("add_one_day", {"current_day": "2026-01-01"}, response, Time).value
        """
        from byzerllm.implementations import execution
        from byzerllm.sandbox import SandboxUnavailableError

        metadata: dict[str, Any] = {"reason": ""}
        value = None
        try:
            source = execution.written(response.output, func_name)
            metadata["raw_func"] = source
            function = execution.loaded(source, func_name, self._chosen_sandbox())
            metadata["func"] = function
            value = execution.as_response(function(**(impl_func_params or {})), response_class)
        except SandboxUnavailableError:
            raise
        except Exception as error:  # whatever the code raises without a sandbox
            metadata["reason"] = metadata["resason"] = execution.reason(error)
        return LLMClassResponse(response=response, value=value, metadata=metadata)

    def _chosen_sandbox(self) -> "Sandbox":
        if self._sandbox is None:
            from byzerllm.sandbox import SandboxSettings

            self._sandbox = SandboxSettings()
        return self._sandbox
