"""`llm.prompt`: prompt functions of one client."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from byzerllm.prompts.functions import PromptFunction
    from byzerllm.prompts.meta import MetaHolder

P = ParamSpec("P")
R = TypeVar("R")


class PromptMethod:
    """The method `prompt` of clients."""

    def prompt(
        self,
        model: str | None = None,
        render: str = "jinja2",
        check_result: bool = False,
        options: Mapping[str, Any] = {},
        return_origin_response: bool = False,
        marker: str | None = None,
        assistant_prefix: str | None = None,
        meta_holder: "MetaHolder | None" = None,
        conversation: Sequence[Any] = [],
    ) -> "Callable[[Callable[P, R]], PromptFunction[P, R]]":
        """`byzerllm.prompt` with this client: the docstring is the prompt, the return annotation what comes
        back.

        Args:
            model: the name of the deployment; the default model unless given.
            render: for programs that name it; there is one dialect, Jinja2's.
            check_result: logs a warning when an answer does not become its class.
            options: arguments of `chat_oai`.
            return_origin_response: gives the list of responses instead of the answer.
            marker: text below the prompt.
            assistant_prefix: the beginning of the answer.
            meta_holder: is told what is known about the answer.
            conversation: messages that come before the prompt.

        Raises:
            InvalidRequestError: `render` names another dialect.

        Example:
            >>> @llm.prompt()
            ... def capital(country: str) -> str:
            ...     '''What is the capital of {{ country }}?'''
            >>> capital("France")
            'The capital of France is Paris.'
        """
        from byzerllm.prompts import functions, running

        functions._check_render(render)
        chosen = {**options, "model": model} if model is not None else dict(options)

        def decorate(func: Callable[P, R]) -> "PromptFunction[P, R]":
            choices = running.Choices(
                llm=self,
                check_result=check_result,
                options=chosen,
                whole=return_origin_response,
                below=marker or "",
                return_prefix=assistant_prefix or "",
                meta=meta_holder,
                conversation=list(conversation),
            )
            return functions.PromptFunction(func, choices)

        return decorate
