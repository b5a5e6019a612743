"""Models that auto-coder's users set up: their keys lie in `~/.auto-coder/keys/models.json`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

_DEEPSEEK = {
    "model_type": "saas/openai",
    "base_url": "https://api.deepseek.com/v1",
    "max_output_tokens": 8096,
    "is_reasoning": False,
}

_BUILT_IN: tuple[dict[str, Any], ...] = (
    {**_DEEPSEEK, "name": "deepseek_chat", "model_name": "deepseek-chat"},
    {**_DEEPSEEK, "name": "deepseek_r1_chat", "model_name": "deepseek-reasoner", "is_reasoning": True},
)


def _directory() -> Path:
    return Path.home() / ".auto-coder" / "keys"


def _known() -> dict[str, dict[str, Any]]:
    """Models by name; those of the user's file win over the built-in ones."""
    models = {model["name"]: dict(model) for model in _BUILT_IN}
    path = _directory() / "models.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return models
    try:
        listed = json.loads(text)
        for model in listed:
            models[model["name"]] = {**models.get(model["name"], {}), **model}
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError(f"{path} must hold a JSON list of models with names: {error!r}") from None
    return models


def _names(model_names: str | Iterable[str]) -> Iterator[str]:
    for names in [model_names] if isinstance(model_names, str) else model_names:
        yield from (name.strip() for name in names.split(",") if name.strip())


def get_model_info(model_names: str | Iterable[str], product_mode: str) -> dict[str, Any] | None:
    """What is known about the first of these models, in the mode `lite`; `None` when none is known.

    With the mode `pro` models are deployments, which `ByzerLLM.get_meta` knows: `None`. The key of a model
    stands in `api_key`, or in the file beside the list that `api_key_path` names.

    Args:
        model_names: names, or one text with commas between them.
        product_mode: `"lite"` or `"pro"`.

    Raises:
        InvalidRequestError: another mode, or the list of models cannot be read.

    Example:
        >>> get_model_info("deepseek_chat", "lite")["model_name"]
        'deepseek-chat'
    """
    if product_mode not in ("lite", "pro"):
        raise InvalidRequestError(
            f'product_mode must be "lite" or "pro", got {product_mode!r}', param="product_mode"
        )
    if product_mode == "pro":
        return None
    models = _known()
    for name in _names(model_names):
        if name in models:
            info = models[name]
            path = _directory() / str(info.get("api_key_path") or info["name"].replace("/", "_"))
            if not info.get("api_key") and path.is_file():
                info["api_key"] = path.read_text(encoding="utf-8").strip()
            return info
    return None


def get_single_llm(model_names: str | Iterable[str], product_mode: str = "lite") -> Any:
    """A client whose default model is the first of these: a deployment (`pro`), or one set up by its key
    (`lite`).

    Args:
        model_names: names, or one text with commas between them.
        product_mode: `"lite"` or `"pro"`.

    Raises:
        NotFoundError: none of the models is known.
        InvalidRequestError: another mode, or the model has no key.

    Example:
        >>> get_single_llm("deepseek_chat").chat_oai("Hello")[0].output
    """
    if product_mode == "pro":
        from byzerllm.client import ByzerLLM

        return ByzerLLM.from_default_model(next(_names(model_names)))
    info = get_model_info(model_names, product_mode)
    if info is None:
        raise NotFoundError(
            f"none of {list(_names(model_names))} is known; add it to {_directory() / 'models.json'}"
        )
    import byzerllm

    llm = byzerllm.SimpleByzerLLM(default_model_name=info["name"])
    llm.deploy(
        model_path="",
        pretrained_model_type=info.get("model_type", "saas/openai"),
        udf_name=info["name"],
        infer_params={
            "saas.base_url": info["base_url"],
            "saas.api_key": info.get("api_key", ""),
            "saas.model": info.get("model_name", info["name"]),
            "saas.is_reasoning": info.get("is_reasoning", False),
            "saas.max_output_tokens": info.get("max_output_tokens", 8096),
        },
    )
    return llm


def get_llm_names(llm: "ByzerLLM | list[ByzerLLM] | None", target_model_type: str | None = None) -> list[str]:
    """The default models of a client, or of its helper client of that name; each once.

    Args:
        llm: a client, a list of them, or `None`.
        target_model_type: the name of a helper client, see `setup_sub_client`.

    Example:
        >>> get_llm_names(ByzerLLM().setup_default_model_name("chat"))
        ['chat']
    """
    if llm is not None and target_model_type is not None and not isinstance(llm, list):
        llm = llm.get_sub_client(target_model_type)
    clients = llm if isinstance(llm, list) else [] if llm is None else [llm]
    return list(dict.fromkeys(name for client in clients if (name := client.default_model_name)))
