"""Import paths of Byzer-LLM; the code lives in the modules that `_HOMES` names and is loaded when it is used."""

from typing import TYPE_CHECKING

from byzerllm.lazy import names

if TYPE_CHECKING:
    from byzerllm.formats import FUNCTION_CALLING_SCHEMA as FUNCTION_CALLING_SCHEMA
    from byzerllm.formats import BaseAbility as BaseAbility
    from byzerllm.formats import base_ability_format as base_ability_format
    from byzerllm.formats import function_calling_format as function_calling_format
    from byzerllm.formats import response_class_format as response_class_format
    from byzerllm.formats import (
        response_class_format_after_chat as response_class_format_after_chat,
    )
    from byzerllm.formats import sys_function_calling_format as sys_function_calling_format
    from byzerllm.formats import sys_response_class_format as sys_response_class_format
    from byzerllm.implementations.prompts import function_impl_format as function_impl_format
    from byzerllm.implementations.prompts import sys_function_impl_format as sys_function_impl_format
    from byzerllm.prompts.rendering import format_prompt_jinja2 as format_prompt_jinja2
    from byzerllm.prompts.rendering import format_str_jinja2 as format_str_jinja2
    from byzerllm.schema.calls import FunctionCall as FunctionCall
    from byzerllm.schema.calls import FunctionCallList as FunctionCallList
    from byzerllm.schema.calls import FunctionCallWrapper as FunctionCallWrapper
    from byzerllm.schema.signature import serialize_function_to_json as serialize_function_to_json
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
    "byzerllm.implementations.prompts": "function_impl_format sys_function_impl_format",
    "byzerllm.prompts.rendering": "format_prompt_jinja2 format_str_jinja2",
    "byzerllm.formats": """FUNCTION_CALLING_SCHEMA BaseAbility base_ability_format function_calling_format
    response_class_format response_class_format_after_chat sys_function_calling_format sys_response_class_format""",
    "byzerllm.schema.calls": "FunctionCall FunctionCallList FunctionCallWrapper",
    "byzerllm.schema.signature": "serialize_function_to_json",
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
)
