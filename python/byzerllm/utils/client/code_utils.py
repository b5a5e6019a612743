"""Code in the answers of models: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """CODE_BLOCK_PATTERN DEFAULT_MODEL DEFAULT_TIMEOUT TIMEOUT_MSG UNKNOWN check_target_codes_exists content_str
    eval_function_completions execute_code extract_code get_target_codes get_value_from_llm_str infer_lang""",
)
