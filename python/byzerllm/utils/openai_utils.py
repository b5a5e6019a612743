"""Helpers for OpenAI's older package: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """completion_with_retry async_completion_with_retry get_completion_endpoint""",
)
