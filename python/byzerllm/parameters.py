"""Reads the parameters of requests (`llm_config`), typed at this border; `_native.translate` reads those of deployments.

Values may be native or strings (`"0.5"`, `"false"`), as SQL sends them. An unknown key is an error that names the
nearest valid one. Keys of Byzer-LLM that have no effect here are reported, so that the caller can say so.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from byzerllm.errors import InvalidRequestError, UnsupportedError

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no", "")


def boolean(key: str, value: Any) -> bool:
    """A truth value, native or written."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    raise _wrong(key, "true or false", value)


def integer(key: str, value: Any) -> int:
    """A whole number, native or written."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            pass
    raise _wrong(key, "a whole number", value)


def number(key: str, value: Any) -> float:
    """A number, native or written."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value.strip())
        except ValueError:
            pass
    raise _wrong(key, "a number", value)


def _whole(low: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        result = integer(key, value)
        if result < low:
            raise _wrong(key, f"a whole number of at least {low}", value)
        return result

    return read


def _top_k(key: str, value: Any) -> int:
    result = integer(key, value)
    return 0 if result == -1 else _whole(0)(key, result)


def _seed(key: str, value: Any) -> int | None:
    result = integer(key, value)
    return None if result == -1 else _whole(0)(key, result)


def _stop(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        decoded = _decoded_list(value)
        value = [value] if decoded is None else decoded
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return list(value)
    raise _wrong(key, "a string or a list of strings", value)


def _comma_separated(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    return _stop(key, value)


def _token_ids(key: str, value: Any) -> list[int]:
    if isinstance(value, str):
        decoded = _decoded_list(value)
        value = [part for part in value.split(",") if part.strip()] if decoded is None else decoded
    elif isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, (list, tuple)):
        return [_whole(0)(key, item) for item in value]
    raise _wrong(key, "a list of token ids", value)


def _logprobs(key: str, value: Any) -> int | None:
    if isinstance(value, bool):
        return 0 if value else None
    return _whole(0)(key, value)


def _biases(key: str, value: Any) -> dict[str, float]:
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value)
        except ValueError:
            pass
    if isinstance(value, Mapping):
        return {str(_whole(0)(key, token)): number(key, bias) for token, bias in value.items()}
    raise _wrong(key, "a dictionary of token ids and biases", value)


def _decoded_list(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    import json

    try:
        decoded = json.loads(text)
    except ValueError:
        return None
    return decoded if isinstance(decoded, list) else None


Reader = Callable[[str, Any], Any]

# Spelling → (field of the engine's sampling parameters, how to read it).
SAMPLING: dict[str, tuple[str, Reader]] = {
    "temperature": ("temperature", number),
    "top_p": ("top_p", number),
    "top_k": ("top_k", _top_k),
    "min_p": ("min_p", number),
    "seed": ("seed", _seed),
    "max_tokens": ("max_tokens", _whole(0)),
    "max_new_tokens": ("max_tokens", _whole(0)),
    "max_length": ("max_tokens", _whole(0)),
    "stop": ("stop", _stop),
    "stopping_sequences": ("stop", _comma_separated),
    "stop_token_ids": ("stop_token_ids", _token_ids),
    "logprobs": ("logprobs", _logprobs),
    "repetition_penalty": ("repetition_penalty", number),
    "presence_penalty": ("presence_penalty", number),
    "frequency_penalty": ("frequency_penalty", number),
    "logit_bias": ("logit_bias", _biases),
    "min_tokens": ("min_tokens", _whole(0)),
    "ignore_eos": ("ignore_end", boolean),
}

# Keys that Byzer-LLM's backends took and that change nothing here, with the values that ask for nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "use_beam_search": (False, "false"),
    "early_stopping": (False, "false"),
    "batch_size": (1, "1"),
    "incremental_output": (False, True, "false", "true"),
    "inference_mode": (),
    "stopping_sequences_skip_check_min_length": (),
    "extra_request_params": ({},),
    "normalize_embeddings": (),
}

_NOT_HERE: dict[str, str] = {
    "image": "images are not supported by this model",
    "request_id": "requests are named by the server; close the generator of stream_chat_oai to stop one",
    "abort": "close the generator of stream_chat_oai to stop a request",
    "adapter_name_or_path": "adapters are not supported by this version",
    "lora_name": "adapters are not supported by this version",
    "lora_int_id": "adapters are not supported by this version",
}

_FOR_EVERYBODY = (*SAMPLING, "n", "best_of", "timeout_s", "stream", "takeover", "no_cache")
_TAKEOVER = ("never", "before_first", "continue", "restart")
# What Byzer-LLM's workers read and no vendor.
_NEVER_SENT = ("extra_request_params", "inference_mode", "batch_size", "stopping_sequences_skip_check_min_length")
_REQUEST_KEYS = (*_FOR_EVERYBODY, *_WITHOUT_EFFECT, *_NOT_HERE)


class Generation:
    """The parameters of one request."""

    def __init__(self) -> None:
        self.sampling: dict[str, Any] = {}
        self.n = 1
        self.best_of: int | None = None
        self.timeout: float | None = None
        self.stream = False
        self.takeover: str | None = None
        """What may happen to the answer when a deployment that answers fails."""
        self.no_cache = False
        """Whether an answer kept from an earlier request will not do."""
        self.extra: dict[str, Any] = {}
        """A vendor's own parameters, under its own names."""
        self.ignored: list[str] = []
        """Keys whose value asks for something that has no effect."""


def generation(config: Mapping[str, Any], ignore_unknown: bool = False, vendor: bool = False) -> Generation:
    """Reads `llm_config`: bare keys and keys with the prefix `gen.` or `generation.`; a later key wins.

    An unknown key is an error, or dropped in silence with `ignore_unknown`, as Byzer-LLM does. A `vendor` gets it as
    its own parameter, and refuses it by name when it does not know it.
    """
    result = Generation()
    for key, value in config.items():
        name = without_prefix(key)
        if vendor and name not in _FOR_EVERYBODY:
            if value is not None and name not in _NEVER_SENT:
                result.extra[name] = value
            continue
        if name not in _REQUEST_KEYS:
            if ignore_unknown:
                continue
            raise unknown(key, _REQUEST_KEYS, "generation key")
        if value is None:
            continue
        if name in SAMPLING:
            field, read = SAMPLING[name]
            result.sampling[field] = read(key, value)
        elif name == "n":
            result.n = _whole(1)(key, value)
        elif name == "best_of":
            result.best_of = _whole(1)(key, value)
        elif name == "timeout_s":
            result.timeout = number(key, value)
            if not 0 < result.timeout < float("inf"):
                raise _wrong(key, "a number of seconds above 0", value)
        elif name == "stream":
            result.stream = boolean(key, value)
        elif name == "takeover":
            if value not in _TAKEOVER:
                raise _wrong(key, "never, before_first, continue or restart", value)
            result.takeover = value
        elif name == "no_cache":
            result.no_cache = boolean(key, value)
        elif name in _NOT_HERE:
            raise UnsupportedError(f"{key}: {_NOT_HERE[name]}", param=key)
        elif value not in _WITHOUT_EFFECT[name]:
            result.ignored.append(key)
    result.sampling = {field: value for field, value in result.sampling.items() if value is not None}
    return result


def without_prefix(key: str) -> str:
    """A generation key without `gen.` or `generation.`."""
    for prefix in ("generation.", "gen."):
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


def unknown(key: str, valid: Iterable[str], what: str) -> InvalidRequestError:
    """The error for an unknown key; it names the nearest valid one, in the prefix that the caller used."""
    import difflib

    candidates = sorted(set(valid))
    name = without_prefix(key)
    near = difflib.get_close_matches(key, candidates, n=1) or difflib.get_close_matches(
        name, candidates, n=1, cutoff=0.5
    )
    if near:
        prefix = key[: len(key) - len(name)]
        hint = f"did you mean {prefix + near[0]!r}?"
    else:
        hint = f"valid keys are {', '.join(candidates)}"
    return InvalidRequestError(f"unknown {what} {key!r}; {hint}", param=key)


def _wrong(key: str, expected: str, value: Any) -> InvalidRequestError:
    return InvalidRequestError(f"{key} must be {expected}, got {value!r}", param=key)
