"""One decorated function on its way: from the cache, from the lock file, or written by the model."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from byzerllm import implementations
from byzerllm.client import _NO_MODEL, ByzerLLM
from byzerllm.implementations import execution
from byzerllm.implementations.stub import Stub
from byzerllm.stepping import Ask, Steps, Work


@dataclass(frozen=True)
class Implementation:
    """What `func_impl_cache` holds: a function of generated code, and what it was written for."""

    function: Callable[..., Any]
    request: str
    sandbox: "execution.Sandbox"

    @property
    def source(self) -> str:
        """The code."""
        return str(getattr(self.function, "source", ""))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)


class Task:
    """A function to be written, and how."""

    def __init__(
        self,
        func: Callable[..., Any],
        around: Mapping[str, Any],
        model: str | None,
        instruction: str | None,
        skip_cache: bool,
        verbose: bool,
        sandbox: "execution.Sandbox | None",
    ) -> None:
        self._stub = Stub(func, around)
        self._model = model
        self._instruction = instruction
        self._skip_cache = skip_cache
        self._verbose = verbose
        self._sandbox = sandbox
        self._request = ""
        self._key = f"{model}_{instruction}_{self._stub.full_name}"

    def call(self, llm: ByzerLLM, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Steps[Any]:
        """Steps of one call; the value is an object of the response class."""
        began = time.monotonic()
        stub = self._stub
        arguments, keywords = stub.bind(arguments, keywords)
        # A class is complete only now: annotations may name what is defined after it.
        self._request = self._request or stub.request(self._instruction)
        sandbox = self._sandbox or llm._chosen_sandbox()
        known = None if self._skip_cache else self._cached(llm, sandbox)
        function = known or (yield from self._found_or_written(llm, sandbox))
        result = yield Work(partial(function, *arguments, **keywords))
        value = execution.as_response(result, stub.response_class)
        if known is None:
            llm.func_impl_cache[self._key] = function
            self._lock(llm, function)
        if self._verbose:
            self._say(f"{stub.full_name} took {time.monotonic() - began:.6f} s")
        return value

    def _cached(self, llm: ByzerLLM, sandbox: "execution.Sandbox") -> Callable[..., Any] | None:
        known = llm.func_impl_cache.get(self._key)
        if isinstance(known, Implementation):
            if known.request != self._request:
                return None  # the function was defined anew, as something else
            if known.sandbox != sandbox:
                function = execution.function(known.source, self._stub.name, sandbox)
                known = llm.func_impl_cache[self._key] = Implementation(function, known.request, sandbox)
        return known

    def _found_or_written(self, llm: ByzerLLM, sandbox: "execution.Sandbox") -> Steps[Implementation]:
        source = None if self._skip_cache and not llm._impl_offline else self._locked(llm)
        if source is None:
            source = yield from self._written(llm)
        if self._verbose:
            self._say(f"{self._stub.full_name} is implemented as:\n{source}")
        function = yield Work(partial(execution.loaded, source, self._stub.name, sandbox))
        return Implementation(function, self._request, sandbox)

    def _written(self, llm: ByzerLLM) -> Steps[str]:
        ask = Ask(llm._model(self._model, _NO_MODEL), None, {}, {}, False, False)
        question = [{"role": "user", "content": self._instruction or ""}]
        func, response_class = self._stub.func, self._stub.response_class
        answers = yield from implementations.steps(llm, ask, question, func, False, None, response_class)
        return execution.written(answers[0].output, self._stub.name)

    def _locked(self, llm: ByzerLLM) -> str | None:
        """The source in the lock file, if it is there and for the same request."""
        if llm._impl_lock is None:
            return None
        from byzerllm.implementations.lock_file import LockFileError

        entry = llm._impl_lock.find(self._stub.full_name, self._instruction or "", self._model)
        if entry is not None and entry.request == self._request:
            return entry.source
        if not llm._impl_offline:
            return None
        why = "is not in it" if entry is None else "was changed since it was written"
        raise LockFileError(
            f"{llm._impl_lock.path}: {self._stub.full_name} {why}, and offline=True asks no model; call it once "
            f"with offline=False, and review the file"
        )

    def _lock(self, llm: ByzerLLM, function: Any) -> None:
        if llm._impl_lock is None or llm._impl_offline:
            return
        from byzerllm.implementations.lock_file import Entry

        entry = Entry(
            name=self._stub.full_name,
            signature=self._stub.described(),
            instruction=self._instruction or "",
            model=self._model or "",
            request=self._request,
            source=function.source,
        )
        known = llm._impl_lock.find(entry.name, entry.instruction, entry.model)
        if known != entry.hashed():
            llm._impl_lock.keep(entry)

    def _say(self, text: str) -> None:
        print(text, flush=True)
