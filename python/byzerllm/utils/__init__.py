"""Import paths of Byzer-LLM; the code lives in the modules above."""

from byzerllm.templates import generate_instruction_from_history
from byzerllm.types import SingleOutput, SingleOutputMeta, StreamOutputs

__all__ = ["SingleOutput", "SingleOutputMeta", "StreamOutputs", "generate_instruction_from_history"]
