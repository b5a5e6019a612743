"""byzerllm: deploy large language models and talk to them.

Importing this package loads nothing heavy; the native engine is loaded at the first call that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM as ByzerLLM

__all__ = ["ByzerLLM", "__version__"]

_ABSENT = """SimpleByzerLLM ByzerRetrieval connect_cluster prompt prompt_lazy agent_reply Image MetaHolder MetaOutput
get_model_info get_single_llm get_llm_names BlockRow restore_model load_model consume_model common_init_model parse_params
check_param_exists log_to_file"""


def __getattr__(name: str) -> Any:
    if name == "ByzerLLM":
        from byzerllm.client import ByzerLLM

        return ByzerLLM
    if name == "__version__":
        from byzerllm._native import __version__

        return __version__
    from byzerllm.absent import names

    return names(__name__, _ABSENT)(name)


def __dir__() -> list[str]:
    return sorted(__all__)
