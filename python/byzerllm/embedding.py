"""Vectors for texts and scores for pairs of texts: `emb`, `emb_query` and `emb_rerank` of the client."""

from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm import parameters
from byzerllm.connection import Connection
from byzerllm.errors import InvalidRequestError
from byzerllm.types import LLMRequest, LLMResponse

Config = Mapping[str, Any]

# Keys of Byzer-LLM's request that say nothing about vectors or scores, and how many texts a step of its models took.
_UNREAD = ("top_p", "temperature", "embedding", "embed_rerank", "batch_size", "show_progress_bar", "use_fp16")


class Embedding(Connection):
    """The part of `ByzerLLM` that makes vectors and scores."""

    def emb(
        self, model: str | None, request: LLMRequest | Sequence[str] | str, extract_params: Config = {}
    ) -> list[LLMResponse]:
        """The embedding of each text: a list of floats in `output`.

        Args:
            model: the name of the deployment; `None` for the default model of embeddings, else the default model.
            request: one text, several, or an `LLMRequest` of one or several.
            extract_params: `dimensions`, `timeout_s` (seconds), `normalize_embeddings`; of models of this machine also
                `truncate` (a text that is too long is cut instead of refused), `max_length` (it is cut to so many
                tokens) and `prompt_name`; of vendors their own parameters. The prefix `gen.` is dropped, and
                `batch_size` has no effect.

        Raises:
            InvalidRequestError: no model is named, the request is no text, or a text is too long.
            NotFoundError: there is no such deployment.
            UnsupportedError: it makes no embeddings, or does not know a parameter.
            UpstreamError: the vendor failed.

        Example:
            >>> llm.setup_default_emb_model_name("emb")
            >>> vector = llm.emb(None, "你好")[0].output
        """
        name = model or self.default_emb_model_name or self.default_model_name
        if not name:
            raise InvalidRequestError(
                "model name is required; or name a default with setup_default_emb_model_name", param="model"
            )
        texts = _texts(request)
        body: dict[str, Any] = {"model": name, "inputs": texts}
        timeout = _parameters(body, {**self.mapping_extra_generation_params.get(name, {}), **extract_params})
        answer = self._endpoint.embed(body, timeout)
        metadata = _told(answer)
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

    def emb_rerank(
        self, model: str | None = None, sentence_pairs: Any = [], extract_params: Config = {}
    ) -> list[LLMResponse]:
        """How well passages answer queries. One response, whose `output` is `[[query, passage], score]` for one pair,
        and for a list of pairs a list of those, the best first. Scores are the model's raw logits.

        Args:
            model: the name of the deployment; `None` for the default model of rerankings, else that of embeddings.
            sentence_pairs: a pair `[query, passage]`, or a list of pairs; tuples will do.
            extract_params: `timeout_s` (seconds), `truncate` (a pair that is too long is cut instead of refused),
                `max_length` (it is cut to so many tokens), `normalize` or `scale` (`"probability"` for numbers between
                0 and 1; `metadata["scale"]` says which they are). The prefix `gen.` is dropped, and `batch_size` has no
                effect.

        Raises:
            InvalidRequestError: no model is named, there is no pair, or one is too long.
            NotFoundError: there is no such deployment.
            UnsupportedError: it is no reranker, or does not know a parameter.

        Example:
            >>> llm.emb_rerank("reranker", ["what is panda?", "A bear."])[0].output
            [['what is panda?', 'A bear.'], 6.18]
        """
        name = model or self.default_rerank_model_name or self.default_emb_model_name
        if not name:
            raise InvalidRequestError(
                "model name is required; or name a default with setup_default_re_rank_model_name", param="model"
            )
        pairs, single = _pairs(sentence_pairs)
        body: dict[str, Any] = {
            "model": name,
            "pairs": [{"query": query, "passage": passage} for query, passage in pairs],
        }
        config = {**self.mapping_extra_generation_params.get(name, {}), **extract_params}
        timeout = _parameters(body, config, scores=True)
        answer = self._endpoint.rerank(body, timeout)
        scored = [[pair, score] for pair, score in zip(pairs, answer["scores"], strict=True)]
        output = scored[0] if single else sorted(scored, key=lambda row: row[1], reverse=True)
        item = {"instruction": sentence_pairs, "embedding": True, "embed_rerank": True}
        metadata = {**_told(answer), "scale": answer["scale"]}
        return [LLMResponse(output=output, input=item, metadata=metadata)]


def _parameters(body: dict[str, Any], config: Config, scores: bool = False) -> float | None:
    """Puts Byzer-LLM's parameters into a request, and returns how long it may take, in seconds."""
    timeout, extra = None, {}
    for key, value in config.items():
        bare = parameters.without_prefix(key)
        if value is None or bare in _UNREAD:
            continue
        if bare == "dimensions" and not scores:
            body["dimensions"] = parameters.integer(key, value)
        elif bare == "timeout_s":
            timeout = parameters.number(key, value)
        elif bare == "truncate":
            body["truncate"] = parameters.boolean(key, value)
        elif bare == "prompt_name" and not scores:
            body["prompt"] = str(value)
        elif bare == "max_length":
            body["truncate"] = True
            extra["max_length"] = parameters.integer(key, value)
        elif bare == "scale" and scores:
            body["scale"] = value
        elif bare == "normalize" and scores:
            body["scale"] = "probability" if parameters.boolean(key, value) else "logit"
        elif bare in ("normalize", "normalize_embeddings") and not scores:
            extra["normalize"] = parameters.boolean(key, value)
        else:
            extra[bare] = value
    if extra:
        body["extra"] = extra
    return timeout


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is told beside vectors or scores."""
    cut = [notice for notice in answer.get("notices", []) if notice.get("notice") == "truncated"]
    metadata: dict[str, Any] = {
        "input_tokens_count": answer["usage"]["prompt_tokens"],
        "generated_tokens_count": 0,
    }
    if cut:
        metadata["truncated"] = [
            {"input": notice.get("input", 0), "from": notice["from"], "to": notice["to"]} for notice in cut
        ]
    return metadata


def _texts(request: LLMRequest | Sequence[str] | str) -> list[str]:
    texts = request.instruction if isinstance(request, LLMRequest) else request
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise InvalidRequestError(f"emb needs a text or a list of texts, got {texts!r}", param="request")
    return listed


def _pairs(given: Any) -> tuple[list[list[str]], bool]:
    """The pairs, and whether it was one without a list around it."""

    def is_pair(value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(t, str) for t in value)

    if is_pair(given):
        return [list(given)], True
    if isinstance(given, list | tuple) and given and all(is_pair(pair) for pair in given):
        return [list(pair) for pair in given], False
    shown = repr(given)[:200]
    raise InvalidRequestError(
        f"emb_rerank needs a pair of texts or a list of pairs, [query, passage], got {shown}", param="sentence_pairs"
    )
