"""Methods of Byzer-LLM's client that this version does not have: each says so instead of being absent."""

from collections.abc import Mapping
from typing import Any, NoReturn

from byzerllm.errors import UnsupportedError


def _refuse(name: str, what: str) -> NoReturn:
    raise UnsupportedError(f"ByzerLLM.{name}: {what} not supported by this version", param=name)


_TRAINING = "training is"

Config = Mapping[str, Any]


class NotYet:
    """Raises `UnsupportedError` for what does not exist yet."""

    def sft(
        self,
        sft_name: str,
        local_data_dir_path: str,
        local_model_path: str,
        local_stage_path: str,
        pretrained_model_type: str,
        num_cpus: float,
        num_gpus: float,
        detached: bool = True,
        json_config: str = "{}",
        model_params: Config = {},
        **kwargs: Any,
    ) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("sft", _TRAINING)

    def pretrain(
        self,
        name: str,
        local_data_dir_path: str,
        local_model_path: str,
        local_stage_path: str,
        pretrained_model_type: str,
        num_cpus: float,
        num_gpus: float,
        detached: bool = True,
        json_config: str = "{}",
        model_params: Config = {},
        **kwargs: Any,
    ) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("pretrain", _TRAINING)

    def merge_lora(
        self, name: str, local_model_path: str, local_adpator_model_path: str, local_target_path: str
    ) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("merge_lora", _TRAINING)

    def raw_sft(self, train_params: Config, sys_conf: Config = {}) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("raw_sft", _TRAINING)

    def raw_pretrain(self, train_params: Config, sys_conf: Config = {}) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("raw_pretrain", _TRAINING)

    def raw_merge_lora(self, train_params: Config, sys_conf: Config) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("raw_merge_lora", _TRAINING)

    def raw_deepspeed_to_huggingface(self, train_params: Config) -> NoReturn:
        """Raises `UnsupportedError`: training is not supported by this version."""
        _refuse("raw_deepspeed_to_huggingface", _TRAINING)
