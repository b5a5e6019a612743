"""One exception class per kind of failure.

Branch on the class (or on `.kind`), never on the message. Classes also inherit from the built-in exception that
programs written against Byzer-LLM caught.
"""

from collections.abc import Mapping
from typing import Any


class ByzerLLMError(Exception):
    """Any failure that byzerllm reports.

    Args:
        message: what failed and what to do.
        param: the parameter at fault, when there is one.
        retry_after: seconds after which a retry may succeed, when known.
        usage: the tokens spent before the failure, when known.

    Example:
        >>> try:
        ...     llm.chat_oai("Hello", llm_config={"top_p": 2})
        ... except ByzerLLMError as error:
        ...     print(error.kind, error.param)
        invalid_request top_p
    """

    kind: str = "internal"
    """What went wrong, as a closed set of words."""
    code: str = "internal"
    """The stable machine-readable code of the kind, as in HTTP error bodies."""

    def __init__(
        self,
        message: str = "",
        *,
        param: str | None = None,
        retry_after: float | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The parameter at fault, when there is one."""
        self.retry_after = retry_after
        """Seconds after which a retry may succeed, when known."""
        self.usage = usage
        """The tokens spent before the failure, when known."""

    def __reduce__(self) -> Any:
        # The keyword-only fields travel as state, so that an error survives a process pool.
        return (type(self), (self.message,), self.__dict__.copy())


class InvalidRequestError(ByzerLLMError, ValueError):
    """The request is malformed or out of range; the same request will never succeed."""

    kind = "invalid_request"
    code = "invalid_request"


class UnauthenticatedError(ByzerLLMError):
    """A credential is missing or wrong."""

    kind = "unauthenticated"
    code = "unauthenticated"


class PermissionDeniedError(ByzerLLMError):
    """The credential is valid but does not allow this."""

    kind = "permission_denied"
    code = "permission_denied"


class NotFoundError(ByzerLLMError, ValueError):
    """The named model does not exist. A `ValueError` too, because that is what Byzer-LLM raised."""

    kind = "not_found"
    code = "not_found"


class ConflictError(ByzerLLMError):
    """The thing exists already, or another process holds it."""

    kind = "conflict"
    code = "conflict"


class TooLargeError(ByzerLLMError, ValueError):
    """The input exceeds a limit, for example the model's context length."""

    kind = "too_large"
    code = "context_length_exceeded"


class UnsupportedError(ByzerLLMError, NotImplementedError):
    """The request is well formed, but this version or this model cannot do it."""

    kind = "unsupported"
    code = "unsupported"


class RateLimitedError(ByzerLLMError):
    """The caller has exceeded its rate."""

    kind = "rate_limited"
    code = "rate_limited"


class OverloadedError(ByzerLLMError):
    """The server is full; try again later."""

    kind = "overloaded"
    code = "overloaded"


class CancelledError(ByzerLLMError):
    """The request was cancelled."""

    kind = "cancelled"
    code = "cancelled"


class DeadlineExceededError(ByzerLLMError, TimeoutError):
    """The deadline passed."""

    kind = "deadline_exceeded"
    code = "deadline_exceeded"


class UpstreamError(ByzerLLMError):
    """A remote model or vendor failed."""

    kind = "upstream"
    code = "upstream"


class UnavailableError(ByzerLLMError):
    """The model or the server is loading, draining, failed or out of reach."""

    kind = "unavailable"
    code = "unavailable"


class InternalError(ByzerLLMError, RuntimeError):
    """A bug in byzerllm."""

    kind = "internal"
    code = "internal"


BY_KIND: dict[str, type[ByzerLLMError]] = {
    error.kind: error
    for error in (
        InvalidRequestError,
        UnauthenticatedError,
        PermissionDeniedError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        UnsupportedError,
        RateLimitedError,
        OverloadedError,
        CancelledError,
        DeadlineExceededError,
        UpstreamError,
        UnavailableError,
        InternalError,
    )
}


def make(
    kind: str,
    message: str,
    param: str | None = None,
    retry_after: float | None = None,
    usage: Mapping[str, Any] | None = None,
) -> ByzerLLMError:
    """The exception for a kind; the native module raises what this returns."""
    return BY_KIND.get(kind, InternalError)(message, param=param, retry_after=retry_after, usage=usage)
