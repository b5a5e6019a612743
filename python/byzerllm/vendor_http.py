"""Requests to an OpenAI-compatible vendor with the standard library: JSON there, JSON or server-sent events back."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from byzerllm.errors import ByzerLLMError, InvalidRequestError, make

# By the HTTP status; others are the vendor's failure.
_KINDS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limited",
    503: "overloaded",
}
_MOST_OF_A_BODY = 64 << 20
_MOST_OF_A_LINE = 8 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Vendor:
    """The address of an OpenAI-compatible interface, with its key."""

    def __init__(self, name: str, base_url: str, api_key: str, model: str, verify: bool) -> None:
        if not base_url.lower().startswith(("http://", "https://")):
            raise InvalidRequestError(
                f"saas.base_url must be an http(s) URL, got {base_url!r}", param="saas.base_url"
            )
        self._name, self._model = name, model
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if base_url.lower().startswith("https://"):
            context = ssl.create_default_context()
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, path: str, body: Mapping[str, Any], timeout: float | None) -> dict[str, Any]:
        """The JSON object that answers a request."""
        with self._open(path, body, timeout) as response:
            try:
                answer = json.loads(response.read(_MOST_OF_A_BODY))
            except (ValueError, OSError) as error:
                raise self._failure("upstream", f"an answer that cannot be read: {error}") from None
        return self._checked(answer)

    def stream(self, path: str, body: Mapping[str, Any], timeout: float | None) -> Iterator[dict[str, Any]]:
        """The JSON objects of a streamed answer. Closing the iterator ends the connection."""
        with self._open(path, body, timeout) as response:
            while True:
                try:
                    line = response.readline(_MOST_OF_A_LINE)
                except OSError as error:
                    raise self._failure(_kind_of(error), f"the stream broke off: {error}") from None
                if not line:
                    raise self._failure("upstream", "the stream ended without its end mark")
                name, _, data = line.decode("utf-8", "replace").strip().partition(":")
                data = data.strip()
                if name != "data" or not data:
                    continue
                if data == "[DONE]":
                    return
                try:
                    chunk = json.loads(data)
                except ValueError as error:
                    raise self._failure("upstream", f"an event that cannot be read: {error}") from None
                yield self._checked(chunk)

    def _open(self, path: str, body: Mapping[str, Any], timeout: float | None) -> Any:
        data = json.dumps(body, ensure_ascii=False).encode()
        request = urllib.request.Request(f"{self._base}{path}", data, self._headers, method="POST")
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        try:
            return self._opener.open(request, **options)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(4096).decode("utf-8", "replace").strip()
            kind = _KINDS.get(error.code, "upstream")
            after = error.headers.get("Retry-After") or ""
            wait = float(after) if after.isdecimal() else None
            raise self._failure(kind, f"HTTP {error.code} {said or error.reason}", wait) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise self._failure(_kind_of(reason), str(reason)) from None

    def _checked(self, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise self._failure("upstream", f"an answer that is no JSON object: {str(answer)[:200]}")
        if answer.get("error"):
            raise self._failure("upstream", f"error: {answer['error']}")
        return answer

    def _failure(self, kind: str, said: str, retry_after: float | None = None) -> ByzerLLMError:
        return make(
            kind,
            f"{self._name} (base_url={self._base}, model={self._model}): {said}",
            retry_after=retry_after,
        )


def _kind_of(error: Any) -> str:
    return "deadline_exceeded" if isinstance(error, TimeoutError) else "unavailable"
