"""Import paths of Byzer-LLM; the code lives in `byzerllm.client`, `byzerllm.types` and `byzerllm.templates`."""

from typing import TYPE_CHECKING

from byzerllm.client import ByzerLLM, default_chat_wrapper
from byzerllm.lazy import names
from byzerllm.templates import Template, Templates
from byzerllm.types import (
    EventCallback,
    EventCallbackResult,
    EventName,
    ExecuteCodeResponse,
    FintuneRequest,
    FintuneRequestExtra,
    InferBackend,
    LLMClassResponse,
    LLMFunctionCallResponse,
    LLMHistoryItem,
    LLMMetadata,
    LLMRequest,
    LLMResponse,
    Role,
)

if TYPE_CHECKING:
    from byzerllm.simple import SimpleByzerLLM as SimpleByzerLLM

__all__ = [
    "ByzerLLM",
    "EventCallback",
    "EventCallbackResult",
    "EventName",
    "ExecuteCodeResponse",
    "FintuneRequest",
    "FintuneRequestExtra",
    "InferBackend",
    "LLMClassResponse",
    "LLMFunctionCallResponse",
    "LLMHistoryItem",
    "LLMMetadata",
    "LLMRequest",
    "LLMResponse",
    "Role",
    "Template",
    "Templates",
    "default_chat_wrapper",
]

__getattr__ = names(
    __name__,
    {"byzerllm.simple": "SimpleByzerLLM"},
    modules="code_utils img_utils math_utils message_utils parallel_utils",
)
