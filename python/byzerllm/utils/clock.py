"""Decorators about time."""

import functools
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from byzerllm.errors import DeadlineExceededError, InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")


class TimeoutException(DeadlineExceededError):
    """A function took longer than `timeout` allows."""


def timeit(func: Callable[P, R]) -> Callable[P, R]:
    """Prints how many seconds each call of a function took.

    Args:
        func: the function.

    Example:
        >>> @timeit
        ... def double(x): return 2 * x
        >>> print(double(21))  # doctest: +ELLIPSIS
        double took ... seconds
        42
    """

    @functools.wraps(func)
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        started = time.perf_counter()
        try:
            return func(*args, **kwargs)
        finally:
            print(f"{func.__name__} took {time.perf_counter() - started:.6f} seconds", flush=True)

    return timed


def timeout(duration: float) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Gives a function so much time; a call that takes longer raises `TimeoutException`.

    The call runs in a thread of its own. Python cannot end a thread: one that is late goes on without anybody
    waiting for it, and does not keep the process alive.

    Args:
        duration: seconds, above 0.

    Raises:
        InvalidRequestError: `duration` is not above 0.

    Example:
        >>> @timeout(60)
        ... def double(x): return 2 * x
        >>> double(21)
        42
    """
    if not duration > 0:
        raise InvalidRequestError(f"duration must be above 0 seconds, got {duration!r}", param="duration")

    def decorate(func: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(func)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            values: list[R] = []
            failures: list[BaseException] = []

            def work() -> None:
                try:
                    values.append(func(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                    failures.append(error)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(duration)
            if failures:
                raise failures[0]
            if not values:
                raise TimeoutException(f"{func.__name__} took longer than {duration} seconds")
            return values[0]

        return limited

    return decorate
