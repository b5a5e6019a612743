"""The same question several times at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM


def chat_oai(llm: "ByzerLLM", workers: int = 3, **kwargs: Any) -> list[Any]:
    """Asks `llm.chat_oai(**kwargs)` in as many threads as there are workers: what each returned, the first one first.

    A failure is raised when no call succeeds; otherwise the answers that there are are returned.
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
    """The first result that has something: values of tools, an object, or a text. `None` when none has."""
    for t in ts:
        for response in t if isinstance(t, (list, tuple)) else [t]:
            if any(getattr(response, name, None) for name in ("values", "value", "output")):
                return t
    return None
