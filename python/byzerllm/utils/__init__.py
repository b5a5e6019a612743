"""Import paths of Byzer-LLM; the code lives in the modules that `_HOMES` names and is loaded when it is used."""

from typing import TYPE_CHECKING

from byzerllm.lazy import names

if TYPE_CHECKING:
    from byzerllm.prompts.rendering import format_prompt_jinja2 as format_prompt_jinja2
    from byzerllm.prompts.rendering import format_str_jinja2 as format_str_jinja2
    from byzerllm.templates import generate_instruction_from_history as generate_instruction_from_history
    from byzerllm.types import SingleOutput as SingleOutput
    from byzerllm.types import SingleOutputMeta as SingleOutputMeta
    from byzerllm.types import StreamOutputs as StreamOutputs
    from byzerllm.utils.clock import TimeoutException as TimeoutException
    from byzerllm.utils.clock import timeit as timeit
    from byzerllm.utils.clock import timeout as timeout
    from byzerllm.utils.execution import exec_capture_output as exec_capture_output
    from byzerllm.utils.stopping import StopSequencesCriteria as StopSequencesCriteria
    from byzerllm.utils.stopping import compute_max_new_tokens as compute_max_new_tokens
    from byzerllm.utils.stopping import tokenize_stopping_sequences as tokenize_stopping_sequences
    from byzerllm.utils.stopping import (
        tokenize_stopping_sequences_where_needed as tokenize_stopping_sequences_where_needed,
    )
    from byzerllm.utils.stopping import tokenize_string as tokenize_string
    from byzerllm.utils.stream_servers import BlockBinaryStreamServer as BlockBinaryStreamServer
    from byzerllm.utils.stream_servers import BlockVLLMStreamServer as BlockVLLMStreamServer
    from byzerllm.utils.stream_servers import VLLMStreamServer as VLLMStreamServer
    from byzerllm.utils.text import generate_file_md5 as generate_file_md5
    from byzerllm.utils.text import generate_str_md5 as generate_str_md5
    from byzerllm.utils.text import get_type_name as get_type_name
    from byzerllm.utils.text import is_annotated_type as is_annotated_type
    from byzerllm.utils.text import load_json_str as load_json_str
    from byzerllm.utils.text import print_flush as print_flush
    from byzerllm.utils.text import random_uuid as random_uuid

_HOMES = {
    "byzerllm.prompts.rendering": "format_prompt_jinja2 format_str_jinja2",
    "byzerllm.templates": "generate_instruction_from_history",
    "byzerllm.types": "SingleOutput SingleOutputMeta StreamOutputs",
    "byzerllm.utils.clock": "TimeoutException timeit timeout",
    "byzerllm.utils.execution": "exec_capture_output",
    "byzerllm.utils.stopping": """StopSequencesCriteria compute_max_new_tokens tokenize_stopping_sequences
    tokenize_stopping_sequences_where_needed tokenize_string""",
    "byzerllm.utils.stream_servers": "BlockBinaryStreamServer BlockVLLMStreamServer VLLMStreamServer",
    "byzerllm.utils.text": """generate_file_md5 generate_str_md5 get_type_name is_annotated_type load_json_str
    print_flush random_uuid""",
}

__getattr__ = names(
    __name__,
    _HOMES,
    """function_calling_format response_class_format response_class_format_after_chat function_impl_format
    base_ability_format sys_response_class_format sys_function_calling_format sys_function_impl_format
    serialize_function_to_json FunctionCall FunctionCallWrapper FunctionCallList FUNCTION_CALLING_SCHEMA BaseAbility""",
)
