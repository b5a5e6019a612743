"""An import path of Byzer-LLM: the types of streams live in `byzerllm.types` and `byzerllm.utils.stream_servers`."""

from byzerllm.types import SingleOutput, SingleOutputMeta, StreamOutputs
from byzerllm.utils.stream_servers import BlockBinaryStreamServer, BlockVLLMStreamServer, VLLMStreamServer

__all__ = [
    "BlockBinaryStreamServer",
    "BlockVLLMStreamServer",
    "SingleOutput",
    "SingleOutputMeta",
    "StreamOutputs",
    "VLLMStreamServer",
]
