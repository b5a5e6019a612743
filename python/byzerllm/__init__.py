"""byzerllm: deploy large language models and talk to them.

Importing this package loads nothing heavy; the native engine is loaded at the first call that needs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM as ByzerLLM
    from byzerllm.cluster import connect_cluster as connect_cluster
    from byzerllm.legacy_models import BlockRow as BlockRow
    from byzerllm.legacy_models import check_param_exists as check_param_exists
    from byzerllm.legacy_models import log_to_file as log_to_file
    from byzerllm.legacy_models import parse_params as parse_params
    from byzerllm.model_names import get_llm_names as get_llm_names
    from byzerllm.model_names import get_model_info as get_model_info
    from byzerllm.model_names import get_single_llm as get_single_llm
    from byzerllm.prompts.functions import prompt as prompt
    from byzerllm.prompts.functions import prompt_lazy as prompt_lazy
    from byzerllm.prompts.meta import MetaHolder as MetaHolder
    from byzerllm.prompts.meta import MetaOutput as MetaOutput
    from byzerllm.simple import SimpleByzerLLM as SimpleByzerLLM
    from byzerllm.utils.nontext import Image as Image

__all__ = [
    "ByzerLLM",
    "ByzerRetrieval",
    "Image",
    "SimpleByzerLLM",
    "__version__",
    "agent_reply",
    "connect_cluster",
    "get_llm_names",
    "get_model_info",
    "get_single_llm",
    "prompt",
]

_HOMES = {
    "byzerllm.client": "ByzerLLM",
    "byzerllm.cluster": "connect_cluster",
    "byzerllm.legacy_models": "BlockRow check_param_exists log_to_file parse_params",
    "byzerllm.model_names": "get_llm_names get_model_info get_single_llm",
    "byzerllm.prompts.functions": "prompt prompt_lazy",
    "byzerllm.prompts.meta": "MetaHolder MetaOutput",
    "byzerllm.simple": "SimpleByzerLLM",
    "byzerllm.utils.nontext": "Image",
}

_ABSENT = """ByzerRetrieval agent_reply restore_model load_model
consume_model common_init_model"""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from byzerllm._native import __version__

        return __version__
    from byzerllm.lazy import names

    return names(__name__, _HOMES, _ABSENT)(name)


def __dir__() -> list[str]:
    return sorted(__all__)
