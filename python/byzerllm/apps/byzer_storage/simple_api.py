"""The client of Byzer storage: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """ByzerStorage DataType FieldOption SortOption""",
)
