"""Import paths of Byzer-LLM; the code lives in `byzerllm.client`, `byzerllm.types` and `byzerllm.templates`."""

from byzerllm.absent import names
from byzerllm.client import ByzerLLM, default_chat_wrapper
from byzerllm.templates import Template, Templates
from byzerllm.types import (
    EventCallback,
    EventCallbackResult,
    EventName,
    ExecuteCodeResponse,
    FintuneRequest,
    FintuneRequestExtra,
    InferBackend,
    LLMHistoryItem,
    LLMMetadata,
    LLMRequest,
    LLMResponse,
    Role,
)

__all__ = [
    "ByzerLLM",
    "EventCallback",
    "EventCallbackResult",
    "EventName",
    "ExecuteCodeResponse",
    "FintuneRequest",
    "FintuneRequestExtra",
    "InferBackend",
    "LLMHistoryItem",
    "LLMMetadata",
    "LLMRequest",
    "LLMResponse",
    "Role",
    "Template",
    "Templates",
    "default_chat_wrapper",
]

__getattr__ = names(__name__, "LLMFunctionCallResponse LLMClassResponse SimpleByzerLLM")
