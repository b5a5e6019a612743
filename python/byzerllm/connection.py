"""How a client reaches the place where its models live, and takes steps there: waiting, or in an event loop."""

import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from byzerllm.errors import InvalidRequestError
from byzerllm.notices import say_once
from byzerllm.settings import Settings
from byzerllm.stepping import Steps, Work

if TYPE_CHECKING:
    import asyncio

    from byzerllm._native import Endpoint

T = TypeVar("T")


def _finish_imports() -> None:
    """Waits for other threads that are importing: a forked child would inherit their locks and never get them."""
    for name in ("byzerllm._native", "byzerllm.event_loop"):
        if name in sys.modules:
            __import__(name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish_imports)


class Connection(Settings):
    """The part of `ByzerLLM` that knows its endpoint."""

    def __init__(self, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(url, **kwargs)
        self._connected: Endpoint | None = None
        self._connecting: asyncio.Future[Endpoint] | None = None
        # What was learned of models, until this client deploys them anew.
        self._lacks: dict[str, set[str]] = {}
        self._templated: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # A copy, and a client that travels to another process, connects for itself.
        return {**self.__dict__, "_connected": None, "_connecting": None}

    @property
    def _endpoint(self) -> "Endpoint":
        if self._connected is None:
            from byzerllm import _native

            url = self.url
            if url is not None and not url.lower().startswith(("http://", "https://")):
                say_once(f"ByzerLLM(): {url!r} is no http(s) URL and has no effect")
                url = None
            self._connected = _native.connect(url, self._token)
        return self._connected

    async def _reach(self) -> "Endpoint":
        """The endpoint. The first look for it is taken in a thread, once for everybody who waits."""
        if self._connected is None:
            import asyncio

            loop = asyncio.get_running_loop()
            if self._connecting is None or self._connecting.done() or self._connecting.get_loop() is not loop:
                self._connecting = loop.run_in_executor(None, lambda: self._endpoint)
            await asyncio.shield(self._connecting)
        return self._endpoint

    def _do(self, steps: Steps[T]) -> T:
        """Takes steps here, waiting for each."""
        take, outcome = steps.send, None
        while True:
            try:
                wanted = take(outcome)
            except StopIteration as done:
                value: T = done.value
                return value
            take = steps.send
            if isinstance(wanted, tuple):
                try:
                    outcome = self._get(*wanted)
                except Exception as error:  # noqa: BLE001 - thrown into the steps
                    take, outcome = steps.throw, error
            elif isinstance(wanted, Work):
                try:
                    outcome = wanted.run()
                except Exception as error:  # noqa: BLE001 - thrown into the steps
                    take, outcome = steps.throw, error
            else:
                getattr(wanted, "close", bool)()
                raise InvalidRequestError(
                    "an event callback or a tool is a coroutine function; only the async methods wait for one"
                )

    def _get(self, name: str, *arguments: Any) -> Any:
        """What a method of the endpoint gives."""
        if name != "answer":
            return getattr(self._endpoint, name)(*arguments)
        call = self._endpoint.chat(*arguments)
        try:
            return call.result()
        finally:
            call.cancel()

    async def _do_later(self, steps: Steps[T]) -> T:
        """Takes steps without blocking the event loop."""
        from byzerllm import event_loop

        take, outcome = steps.send, None
        while True:
            try:
                wanted = take(outcome)
            except StopIteration as done:
                value: T = done.value
                return value
            take = steps.send
            try:
                if isinstance(wanted, tuple):
                    name, *arguments = wanted
                    outcome = await event_loop.run(getattr(await self._reach(), f"{name}_later"), *arguments)
                elif isinstance(wanted, Work):
                    outcome = await event_loop.in_thread(wanted.run)
                else:
                    outcome = await wanted
            except Exception as error:  # noqa: BLE001 - thrown into the steps
                take, outcome = steps.throw, error
