"""Messages between agents: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """termindate_message un_termindate_message success_message fail_message is_success copy_error_count get_error_count
    inc_error_count check_error_count padding_messages_merge padding_messages_expand""",
)
