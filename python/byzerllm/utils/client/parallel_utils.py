"""The same question several times at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM


def chat_oai(llm: "ByzerLLM", workers: int = 3, **kwargs: Any) -> list[Any]:
    """Asks `llm.chat_oai(**kwargs)` several times at once: what each call returned, the first to end first.

    Args:
        llm: the client.
        workers: calls, each in a thread of its own.
        kwargs: the arguments of `chat_oai`.

    Raises:
        What the last call to fail raised, when no call succeeds; otherwise the answers that there are are
            returned.

    Example:
        >>> answers = chat_oai(llm, workers=3, conversations="Tell a joke")
        >>> get_single_result(answers)[0].output
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed

    answers, failure = [], None
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for future in as_completed([pool.submit(lambda: llm.chat_oai(**kwargs)) for _ in range(workers)]):
            try:
                answers.append(future.result())
            except Exception as error:  # noqa: BLE001 - raised when every call fails
                failure = error
    if not answers and failure is not None:
        raise failure
    return answers


def get_single_result(ts: Iterable[Any]) -> Any:
    """The first result that has something: values of tools, an object, or a text. `None` when none has.

    Args:
        ts: results, or lists of them as `chat_oai` returns.

    Example:
        >>> get_single_result([[LLMResponse("", "")], [LLMResponse("Hello", "")]])[0].output
        'Hello'
    """
    for t in ts:
        for response in t if isinstance(t, (list, tuple)) else [t]:
            if any(getattr(response, name, None) for name in ("values", "value", "output")):
                return t
    return None
