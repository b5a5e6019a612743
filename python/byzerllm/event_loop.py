"""Waits for native work in an asyncio event loop: no thread per call, and the loop is never blocked.

The native side runs the work on its own few threads and makes a descriptor readable when something is finished; the
loop then takes every finished outcome at once.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class _Post:
    """What one event loop waits for."""

    def __init__(self) -> None:
        from byzerllm._native import Mailbox

        self._mailbox = Mailbox()
        self._tickets = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def run(self, start: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        ticket, future = next(self._tickets), loop.create_future()
        if not self._waiting:
            loop.add_reader(self._mailbox.fileno(), self._deliver)
        self._waiting[ticket] = future
        try:
            start(self._mailbox, ticket, *arguments)
            return await future
        finally:
            if self._waiting.pop(ticket, None) is not None:
                self._mailbox.abandon(ticket)
            if not self._waiting and not loop.is_closed():
                loop.remove_reader(self._mailbox.fileno())

    def _deliver(self) -> None:
        for ticket, value, error in self._mailbox.drain():
            future = self._waiting.get(ticket)
            if future is None or future.done():
                continue
            del self._waiting[ticket]
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


_posts: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Post]" = WeakKeyDictionary()


async def in_thread(function: Callable[[], Any]) -> Any:
    """What a blocking function gives; it runs in a thread."""

    def finish() -> Any:
        try:
            return function()
        except StopIteration as error:
            # A future cannot carry it.
            raise RuntimeError("the function raised StopIteration") from error

    return await asyncio.to_thread(finish)


async def run(start: Callable[..., None], *arguments: Any) -> Any:
    """Calls `start(mailbox, ticket, *arguments)` and waits for what it delivers. Cancelling ends the work."""
    loop = asyncio.get_running_loop()
    post = _posts.get(loop)
    if post is None:
        post = _posts[loop] = _Post()
    return await post.run(start, arguments)
