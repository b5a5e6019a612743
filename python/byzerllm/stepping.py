"""Work that the blocking and the async methods share: a generator that yields what it waits for.

It yields a method of the endpoint with its arguments, a `Work`, or an awaitable that a program's function returned, and
is sent the outcome; a failure is thrown into it.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from byzerllm.templates import RoleMapping

T = TypeVar("T")
Steps = Generator[Any, Any, T]


class Work(Generic[T]):
    """A program's own function. The async methods run it in a thread, so that it blocks no event loop."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], T]) -> None:
        self.run = run


class Options(TypedDict, total=False):
    """The arguments of `chat_oai` that do not decide what it returns."""

    impl_func: Callable[..., Any] | None
    execute_impl_func: bool
    impl_func_params: dict[str, Any] | None
    func_params: dict[str, Any] | None
    response_after_chat: bool
    enable_default_sys_message: bool
    model: str | None
    role_mapping: RoleMapping | None
    llm_config: Mapping[str, Any]
    only_return_prompt: bool
    extra_request_params: Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """How a conversation is put to a model, beside its messages."""

    model: str
    role_mapping: RoleMapping | None
    llm_config: Mapping[str, Any]
    extra_request_params: Mapping[str, Any]
    with_abilities: bool
    """Whether the system message explains tools and classes (`enable_default_sys_message`)."""
    only_return_prompt: bool
