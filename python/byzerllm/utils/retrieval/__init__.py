"""The client of ByzerRetrieval: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import modules, names

__getattr__ = names(
    __name__,
    """ByzerRetrieval""",
)

modules(__name__, {"rest": "deploy_retrieval_rest_server"})
