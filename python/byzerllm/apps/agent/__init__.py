"""Agents: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """Agents Agent ChatResponse ConversableAgent UserProxyAgent AssistantAgent CommonAgent GroupChat GroupChatManager
    get_agent_name run_agent_func count_messages_length copy_message modify_message_metadata modify_message_content
    modify_last_message""",
)
