"""The client of ByzerRetrieval: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """ByzerRetrieval""",
)
