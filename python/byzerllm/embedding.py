"""Vectors for texts: `emb` and `emb_query` of the client."""

from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm import parameters
from byzerllm.connection import Connection
from byzerllm.errors import InvalidRequestError
from byzerllm.types import LLMRequest, LLMResponse

Config = Mapping[str, Any]

# Keys of Byzer-LLM's request that say nothing about vectors, and those that only its own models read.
_UNREAD = ("max_length", "top_p", "temperature", "embedding", "normalize_embeddings")


class Embedding(Connection):
    """The part of `ByzerLLM` that makes vectors."""

    def emb(
        self, model: str | None, request: LLMRequest | Sequence[str] | str, extract_params: Config = {}
    ) -> list[LLMResponse]:
        """The embedding of each text: a list of floats in `output`.

        Args:
            model: the name of the deployment; `None` for the default model of embeddings, else the default model.
            request: one text, several, or an `LLMRequest` of one or several.
            extract_params: `dimensions`, `timeout_s` (seconds), and parameters of the vendor under its own names;
                the prefix `gen.` is dropped.

        Raises:
            InvalidRequestError: no model is named, or the request is no text.
            NotFoundError: there is no such deployment.
            UnsupportedError: it makes no embeddings, or does not know a parameter.
            UpstreamError: the vendor failed.

        Example:
            >>> llm.setup_default_emb_model_name("baichuan_emb")
            >>> vector = llm.emb(None, "你好")[0].output
        """
        name = model or self.default_emb_model_name or self.default_model_name
        if not name:
            raise InvalidRequestError(
                "model name is required; or name a default with setup_default_emb_model_name", param="model"
            )
        texts = _texts(request)
        body: dict[str, Any] = {"model": name, "inputs": texts}
        timeout, extra = None, {}
        for key, value in {**self.mapping_extra_generation_params.get(name, {}), **extract_params}.items():
            bare = parameters.without_prefix(key)
            if value is None or bare in _UNREAD:
                continue
            if bare == "dimensions":
                body["dimensions"] = parameters.integer(key, value)
            elif bare == "timeout_s":
                timeout = parameters.number(key, value)
            else:
                extra[bare] = value
        if extra:
            body["extra"] = extra
        answer = self._endpoint.embed(body, timeout)
        spent = answer["usage"]["prompt_tokens"]
        metadata = {"input_tokens_count": spent, "generated_tokens_count": 0}
        return [
            LLMResponse(
                output=vector, input={"instruction": text, "embedding": True}, metadata=dict(metadata)
            )
            for text, vector in zip(texts, answer["vectors"], strict=True)
        ]

    def emb_query(self, v: str, model: str | None = None) -> list[LLMResponse]:
        """The embedding of one text.

        Args:
            v: the text.
            model: as in `emb`.

        Raises:
            What `emb` raises.

        Example:
            >>> vector = llm.emb_query("Hello", model="embedder")[0].output
        """
        return self.emb(model, v)


def _texts(request: LLMRequest | Sequence[str] | str) -> list[str]:
    texts = request.instruction if isinstance(request, LLMRequest) else request
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise InvalidRequestError(f"emb needs a text or a list of texts, got {texts!r}", param="request")
    return listed
