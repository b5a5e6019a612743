"""byzerllm: deploy large language models and talk to them.

Importing this package loads nothing heavy; the native engine is loaded at the first call that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM as ByzerLLM

__all__ = ["ByzerLLM", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "ByzerLLM":
        from byzerllm.client import ByzerLLM

        return ByzerLLM
    if name == "__version__":
        from byzerllm._native import __version__

        return __version__
    raise AttributeError(f"module 'byzerllm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
