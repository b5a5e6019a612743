"""Import paths of Byzer-LLM; the code lives in the modules above."""

from byzerllm.absent import names
from byzerllm.templates import generate_instruction_from_history
from byzerllm.types import SingleOutput, SingleOutputMeta, StreamOutputs

__all__ = ["SingleOutput", "SingleOutputMeta", "StreamOutputs", "generate_instruction_from_history"]

__getattr__ = names(
    __name__,
    """function_calling_format response_class_format response_class_format_after_chat function_impl_format
    base_ability_format sys_response_class_format sys_function_calling_format sys_function_impl_format
    serialize_function_to_json FunctionCall FunctionCallWrapper FunctionCallList FUNCTION_CALLING_SCHEMA
    exec_capture_output generate_str_md5 generate_file_md5 compute_max_new_tokens tokenize_string
    tokenize_stopping_sequences tokenize_stopping_sequences_where_needed StopSequencesCriteria VLLMStreamServer
    BlockVLLMStreamServer BlockBinaryStreamServer print_flush timeit timeout TimeoutException load_json_str
    get_type_name is_annotated_type BaseAbility format_prompt_jinja2 format_str_jinja2 random_uuid""",
)
