"""Models in the object store of Ray: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """transfer_from_ob block_transfer_from_ob""",
)
