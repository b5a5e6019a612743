"""The words of `pretrained_model_type`, and which checkpoints they stand for."""

from collections.abc import Iterable

from byzerllm.errors import UnsupportedError
from byzerllm.parameters import unknown

# Word → what the architecture's name contains; empty means that the file decides.
_CHAT: dict[str, tuple[str, ...]] = {
    "auto": (),
    "llama": ("llama",),
    "llama2": ("llama", "mistral", "yi"),
    "zephyr": ("mistral", "llama"),
    "qwen": ("qwen",),
    "baichuan": ("baichuan",),
    "baichuan2": ("baichuan",),
    "falcon": ("falcon", "rw"),
    "starcode": ("bigcode", "starcoder"),
    "chatglm2": ("chatglm",),
    "chatglm6b": ("chatglm",),
    "moss": ("moss",),
    "alpha_moss": ("moss",),
    "dolly": ("neox", "gpt"),
}

_OTHER_TASKS = {
    "bge": "embedding",
    "m3e": "embedding",
    "bge_rerank": "rerank",
    "qwen_vl_chat": "vision",
    "visualglm": "vision",
    "stable_diffusion": "image",
    "bark": "speech",
    "whisper": "transcription",
}


def family(pretrained_model_type: str) -> str:
    """Checks the word and returns it without `custom/`."""
    word = pretrained_model_type or "custom/auto"
    if word.startswith("saas/"):
        raise UnsupportedError(
            f"pretrained_model_type {word!r}: hosted models are not supported by this version",
            param="pretrained_model_type",
        )
    name = word.removeprefix("custom/")
    if name in _OTHER_TASKS:
        raise UnsupportedError(
            f"pretrained_model_type {word!r}: {_OTHER_TASKS[name]} models are not supported by this version",
            param="pretrained_model_type",
        )
    if name not in _CHAT:
        raise unknown(word, [f"custom/{known}" for known in (*_CHAT, *_OTHER_TASKS)], "pretrained_model_type")
    return name


def mismatch(name: str, architectures: Iterable[str]) -> str | None:
    """Says what is odd when the file is of another family than the word; the file decides all the same."""
    found = [architecture for architecture in architectures if architecture]
    expected = _CHAT.get(name, ())
    if not expected or not found:
        return None
    if any(word in architecture.lower() for word in expected for architecture in found):
        return None
    return (
        f"pretrained_model_type says {name!r}, but the model is a {', '.join(found)}; it runs as what it is"
    )
