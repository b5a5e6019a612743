"""The records of Byzer-LLM's HTTP server: an import path, see `byzerllm.absent`. Ours has an OpenAPI document instead."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """ChatCompletionRequest ChatCompletionResponse ChatCompletionResponseChoice ChatCompletionResponseStreamChoice
    ChatCompletionStreamResponse ChatMessage CompletionRequest CompletionResponse DeltaMessage EmbeddingCompletionRequest
    EmbeddingsResponse ErrorResponse ModelCard ModelList ModelPermission UsageInfo""",
)
