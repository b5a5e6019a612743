"""`SimpleByzerLLM`: talks to OpenAI-compatible vendors by HTTP, from this process, without engine or server."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from byzerllm import answers, parameters, vendor_wire
from byzerllm import conversation as talk
from byzerllm.errors import InvalidRequestError, NotFoundError, UnsupportedError
from byzerllm.parameters import boolean
from byzerllm.prompts.method import PromptMethod
from byzerllm.settings import Settings
from byzerllm.types import EventName, LLMClassResponse, LLMMetadata, LLMRequest, LLMResponse, StreamItem

Config = Mapping[str, Any]
Item = dict[str, Any]

_DEEPSEEK = "https://api.deepseek.com/v1"
_GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
_KEYS = ("base_url", "api_key", "model", "max_output_tokens", "is_reasoning", "https_verify")
_CONTEXT = 8192

# Fields of our sampling parameters that OpenAI's interface calls otherwise.
_RENAMED = {"ignore_end": "ignore_eos", "logprobs": "top_logprobs"}
# What reasoning models do not take.
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stop",
)


@dataclass(frozen=True)
class _Deployment:
    """A vendor's model under a name."""

    name: str
    kind: str
    base_url: str
    api_key: str
    model: str
    max_output_tokens: int
    is_reasoning: bool
    https_verify: bool


class SimpleByzerLLM(Settings, PromptMethod):
    """A client of vendors. `deploy` only remembers how to reach one; the `setup_*` methods for workers have
    no effect.

    Args:
        default_model_name: the model of calls that name none.
        kwargs: those of `ByzerLLM` that are no server's: `verbose`, `strict`, `ignore_unknown`,
            `skip_nontext_check`.

    Raises:
        InvalidRequestError: a switch cannot be read.
        UnsupportedError: with `strict`, an argument has no effect.

    Example:
        >>> llm = SimpleByzerLLM(default_model_name="deepseek_chat")
        >>> llm.deploy(infer_params={"saas.api_key": os.environ["DEEPSEEK_API_KEY"]})
        >>> llm.setup_max_output_length("deepseek_chat", 256).chat_oai("Hello")[0].output
    """

    def __init__(self, default_model_name: str = "deepseek_chat", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.default_model_name = default_model_name
        self.deployments: dict[str, _Deployment] = {}

    @staticmethod
    def from_default_model(model: str, auto_connect_cluster: bool = True) -> "SimpleByzerLLM":
        """A client whose default model this is; `deploy` says where the model is.

        Args:
            model: the name that `deploy` will give.
            auto_connect_cluster: has no effect: there is no cluster to connect to.

        Example:
            >>> SimpleByzerLLM.from_default_model("deepseek_chat").default_model_name
            'deepseek_chat'
        """
        return SimpleByzerLLM(default_model_name=model)

    # Deployments.

    def deploy(
        self,
        model_path: str = "",
        pretrained_model_type: str = "saas/openai",
        udf_name: str = "",
        infer_params: Config = {},
    ) -> dict[str, Any]:
        """Remembers a vendor's model under a name; nothing is asked of the vendor.

        Args:
            model_path: not read: there are no files.
            pretrained_model_type: `saas/openai` or another `saas/…`; `saas/gemini` has Gemini's address as
                default.
            udf_name: the name; the default model's unless given.
            infer_params: `saas.base_url` (DeepSeek's unless given), `saas.api_key`, `saas.model`
                (`deepseek-chat`), `saas.max_output_tokens` (8096), `saas.is_reasoning` (False),
                `saas.https_verify` (True).

        Raises:
            InvalidRequestError: the type is no vendor's, a key is unknown, `saas.api_key` is missing or the
                URL no http(s) one.

        Example:
            >>> llm.deploy(udf_name="deepseek_chat", infer_params={"saas.api_key": "…"})
            {'model': 'deepseek_chat', 'status': 'deployed'}
        """
        if not pretrained_model_type.startswith("saas/"):
            raise InvalidRequestError(
                f"SimpleByzerLLM talks to vendors (saas/…), not to {pretrained_model_type!r}; use ByzerLLM",
                param="pretrained_model_type",
            )
        given = {key.removeprefix("saas."): value for key, value in infer_params.items()}
        for key in infer_params:
            if key.removeprefix("saas.") not in _KEYS:
                raise parameters.unknown(key, [f"saas.{name}" for name in _KEYS], "infer_params key")
        if not given.get("api_key"):
            raise InvalidRequestError("saas.api_key is required", param="saas.api_key")
        name = udf_name or self.default_model_name or ""
        default = _GEMINI if pretrained_model_type == "saas/gemini" else _DEEPSEEK
        self.deployments[name] = _Deployment(
            name=name,
            kind=pretrained_model_type,
            base_url=str(given.get("base_url") or default),
            api_key=str(given["api_key"]),
            model=str(given.get("model") or "deepseek-chat"),
            max_output_tokens=parameters.integer(
                "saas.max_output_tokens", given.get("max_output_tokens", 8096)
            ),
            is_reasoning=boolean("saas.is_reasoning", given.get("is_reasoning", False)),
            https_verify=boolean("saas.https_verify", given.get("https_verify", True)),
        )
        _vendor(self.deployments[name])
        return {"model": name, "status": "deployed"}

    def undeploy(self, udf_name: str, force: bool = False) -> None:
        """Forgets a model. A missing one is no error.

        Args:
            udf_name: its name.
            force: has no effect: nothing runs here.

        Example:
            >>> llm.undeploy("deepseek_chat")
        """
        self.deployments.pop(udf_name, None)

    def is_model_exist(self, udf_name: str) -> bool:
        """Whether a model of that name was deployed here.

        Args:
            udf_name: its name.

        Example:
            >>> llm.is_model_exist("deepseek_chat")
            True
        """
        return udf_name in self.deployments

    def get_meta(self, model: str | None = None, llm_config: Config = {}) -> dict[str, Any]:
        """What is known about a model; its key is left out.

        Args:
            model: its name; the default model unless given.
            llm_config: not read.

        Raises:
            NotFoundError: no such model was deployed here.

        Example:
            >>> llm.get_meta()["deploy_info"]["base_url"]
            'https://api.deepseek.com/v1'
        """
        found = self._deployment(model)
        return {
            "model_name": found.name,
            "backend": "openai",
            "max_model_len": _CONTEXT,
            "support_stream": True,
            "model_deploy_type": "saas",
            "message_format": True,
            "support_chat_template": True,
            "deploy_info": {
                "pretrained_model_type": found.kind,
                "base_url": found.base_url,
                "model": found.model,
                "max_output_tokens": found.max_output_tokens,
                "is_reasoning": found.is_reasoning,
            },
        }

    @property
    def metadata(self) -> LLMMetadata:
        """What is known about the default model; `context_window` and `num_output` are in tokens.

        Raises:
            NotFoundError: it was not deployed here.

        Example:
            >>> llm.metadata.num_output
            8096
        """
        found = self._deployment(None)
        return LLMMetadata(
            context_window=_CONTEXT,
            num_output=found.max_output_tokens,
            is_chat_model=True,
            model_name=found.name,
        )

    def setup_template(self, model: str, template: Any) -> "SimpleByzerLLM":
        """Nothing to choose: vendors take messages.

        Args:
            model, template: not read.
        """
        return self

    def abort(self, request_id: str, model: str | None = None) -> None:
        """Does nothing; close the generator of `stream_chat_oai` to stop an answer.

        Args:
            request_id, model: not read.

        Example:
            >>> stream.close()
        """

    # Chats.

    def chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = [],
        tool_choice: Any = None,
        execute_tool: bool = False,
        impl_func: Any = None,
        execute_impl_func: bool = False,
        impl_func_params: dict[str, Any] | None = None,
        func_params: dict[str, Any] | None = None,
        response_class: Any = None,
        response_after_chat: bool = False,
        enable_default_sys_message: bool = False,
        model: str | None = None,
        role_mapping: Any = None,
        llm_config: Config = {},
        only_return_prompt: bool = False,
        extra_request_params: Config = {},
    ) -> list[Any]:
        """Continues a conversation and returns the answers.

        With a `response_class` `[0].value` is the object, or `None` when the answer is none (see
        `[0].metadata["reason"]`).

        Args:
            conversations: messages with roles, or one user message as a string.
            tools, tool_choice, execute_tool, impl_func, execute_impl_func, response_after_chat,
                enable_default_sys_message: for `ByzerLLM`, and refused here.
            impl_func_params, func_params: not read without those.
            response_class: a class, a type or a JSON Schema; the prompt asks for JSON of it.
            model: the name that `deploy` gave; the default model unless given.
            role_mapping: has no effect, since vendors take messages.
            llm_config: generation keys as in `ByzerLLM.chat_oai`; `timeout_s` is in seconds.
                `response_prefix` begins the answer.
            only_return_prompt: asks no model; the prompt is in `input`.
            extra_request_params: fields of the vendor's request, sent as they are.

        Raises:
            UnsupportedError: an argument that is refused here.
            InvalidRequestError: a generation key is unknown or out of range.
            NotFoundError: no such model was deployed here.
            UpstreamError: the vendor failed; other classes tell apart what its status says, such as
                `RateLimitedError`.
            UnavailableError: nobody answers at the vendor's address.
            DeadlineExceededError: the vendor said nothing for `timeout_s`.

        Example:
            >>> llm.chat_oai("What is the capital of France?", llm_config={"temperature": 0})[0].output
            'The capital of France is Paris.'
        """
        for name, asked in (
            ("tools", bool(tools) or tool_choice is not None or execute_tool),
            ("impl_func", impl_func is not None or execute_impl_func),
            ("response_after_chat", response_after_chat),
            ("enable_default_sys_message", enable_default_sys_message),
        ):
            if asked:
                raise UnsupportedError(f"SimpleByzerLLM has no {name}; use ByzerLLM", param=name)
        found = self._deployment(model)
        history = talk.messages(conversations)
        if response_class is not None:
            from byzerllm.formats import response_class_format

            history[-1]["content"] = response_class_format(history[-1]["content"], response_class)
        item, body, timeout = self._request(found, history, llm_config, extra_request_params)
        if only_return_prompt:
            return [LLMResponse(output="", input=item["instruction"], metadata=item)]
        results = self._event(EventName.BEFORE_CALL_MODEL, found.name, [item])
        if results is None:
            started = time.monotonic()
            answer = _vendor(found).post("/chat/completions", body, timeout)
            results = vendor_wire.results(answer, item, started)
        results = answers.checked(results)
        replaced = self._event(EventName.AFTER_CALL_MODEL, found.name, results)
        responses = [
            LLMResponse(
                output=result["predict"],
                input=result.get("input", {}),
                metadata=dict(result.get("metadata", {})),
            )
            for result in (results if replaced is None else answers.checked(replaced))
        ]
        return responses if response_class is None else [_read(one, response_class) for one in responses]

    async def async_chat_oai(self, conversations: talk.Conversations, **options: Any) -> list[Any]:
        """`chat_oai` in a thread, so that the event loop goes on. A cancelled task leaves its thread to
        finish.

        Args:
            conversations, options: as in `chat_oai`.

        Raises:
            What `chat_oai` raises.

        Example:
            >>> [answer] = await llm.async_chat_oai("What is the capital of France?")
        """
        import asyncio

        return await asyncio.to_thread(self.chat_oai, conversations, **options)

    def stream_chat_oai(
        self,
        conversations: talk.Conversations,
        model: str | None = None,
        role_mapping: Any = None,
        delta_mode: bool = False,
        llm_config: Config = {},
        extra_request_params: Config = {},
    ) -> Iterator[StreamItem]:
        """Streams one answer as pairs of a text and what is known.

        Closing the generator, or dropping it, ends the connection.

        Args:
            conversations: messages with roles, or one user message as a string.
            model: the name that `deploy` gave; the default model unless given.
            role_mapping: has no effect.
            delta_mode: the text is the new part; otherwise all of it so far.
            llm_config: generation keys; `timeout_s` is in seconds.
            extra_request_params: fields of the vendor's request.

        Raises:
            UnsupportedError: `n` is above 1.
            What `chat_oai` raises, at the step where it happens.

        Example:
            >>> for text, meta in llm.stream_chat_oai("Hello", delta_mode=True):
            ...     print(text, end="", flush=True)
        """
        found = self._deployment(model)
        history = talk.messages(conversations)
        item, body, timeout = self._request(found, history, llm_config, extra_request_params)
        if body.get("n", 1) != 1:
            raise UnsupportedError(
                "stream_chat_oai streams one answer; use chat_oai for n above 1", param="n"
            )
        results = self._event(EventName.BEFORE_CALL_MODEL, found.name, [item])
        if results is not None:
            yield from answers.given(answers.checked(results), str)
            return
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        fold = answers.Fold(str, delta_mode)
        clock: Any = vendor_wire.Clock()
        for chunk in _vendor(found).stream("/chat/completions", body, timeout):
            for event in vendor_wire.events(chunk, clock):
                made = fold.item(event, clock)
                if made is not None:
                    yield made
        self._event(EventName.AFTER_CALL_MODEL, found.name, fold.results(item))

    async def async_stream_chat_oai(
        self,
        conversations: talk.Conversations,
        role_mapping: Any = None,
        model: str | None = None,
        delta_mode: bool = False,
        llm_config: Config = {},
        extra_request_params: Config = {},
    ) -> AsyncIterator[StreamItem]:
        """`stream_chat_oai` in threads, so that the event loop goes on.

        Args:
            conversations, role_mapping, model, delta_mode, llm_config, extra_request_params: as in
                `stream_chat_oai`.

        Raises:
            What `stream_chat_oai` raises.

        Example:
            >>> async for text, meta in llm.async_stream_chat_oai("Hello", delta_mode=True):
            ...     print(text, end="", flush=True)
        """
        import asyncio

        loop = asyncio.get_running_loop()
        items = self.stream_chat_oai(
            conversations, model, role_mapping, delta_mode, llm_config, extra_request_params
        )
        try:
            while (item := await loop.run_in_executor(None, next, items, None)) is not None:
                yield item
        finally:
            # A thread may still be waiting for the next item; the stream ends when that has come.
            await loop.run_in_executor(None, _closed, items)

    # Embeddings.

    def emb(
        self, model: str | None, request: LLMRequest | str | list[str], extract_params: Config = {}
    ) -> list[LLMResponse]:
        """The embedding of each text, by the vendor's embedding model.

        Args:
            model: the name that `deploy` gave; the default model of embeddings, else of chats, unless given.
            request: one text, several, or an `LLMRequest` of them.
            extract_params: fields of the vendor's request.

        Raises:
            NotFoundError: no such model was deployed here.
            UpstreamError: the vendor failed.

        Example:
            >>> [one, two] = llm.emb("embedder", ["Hello", "Good morning"])
            >>> len(one.output) == len(two.output)
            True
        """
        found = self._deployment(model or self.default_emb_model_name)
        texts = request.instruction if isinstance(request, LLMRequest) else request
        texts = [texts] if isinstance(texts, str) else list(texts)
        body = {"model": found.model, "input": texts, **extract_params}
        answer = _vendor(found).post("/embeddings", body, None)
        rows = sorted(answer["data"], key=lambda row: row.get("index", 0))
        return [
            LLMResponse(output=row["embedding"], input={"instruction": text, "embedding": True})
            for row, text in zip(rows, texts, strict=True)
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

    # How a chat becomes a request.

    def _deployment(self, model: str | None) -> _Deployment:
        name = model or self.default_model_name or ""
        if name not in self.deployments:
            raise NotFoundError(
                f"no model {name!r} was deployed in this client; call deploy first", param="model"
            )
        return self.deployments[name]

    def _request(
        self, found: _Deployment, history: list[Item], llm_config: Config, extra: Config
    ) -> tuple[Item, Item, float | None]:
        """What is told about the request, its body, and its deadline in seconds."""
        config = {**self.mapping_extra_generation_params.get(found.name, {}), **llm_config}
        item = {"instruction": history[-1]["content"], "history": history[:-1], **config}
        prefix = config.pop("response_prefix", None)
        generation = parameters.generation(config, self.ignore_unknown)
        if generation.stream:
            raise UnsupportedError("use stream_chat_oai for a streamed answer", param="stream")
        limit = self.mapping_max_output_length.get(found.name, found.max_output_tokens)
        sampling = {"temperature": 0.7, "top_p": 0.9, "max_tokens": limit, **generation.sampling}
        body: Item = {
            "model": found.model,
            "messages": vendor_wire.messages(history, self.skip_nontext_check),
        }
        for field, value in sampling.items():
            if not (found.is_reasoning and field in _SAMPLING):
                body[_RENAMED.get(field, field)] = value
        if "top_logprobs" in body:
            body["logprobs"] = True
        if generation.n != 1:
            body["n"] = generation.n
        vendor_wire.put_prefix(body, found.base_url, prefix)
        body.update(extra)
        if self.verbose:
            print(f"Send to model[{found.name}]:{[item]}", flush=True)
        return item, body, generation.timeout

    def _event(self, name: EventName, *arguments: Any) -> Any:
        steps = self._trigger(name, *arguments)
        try:
            waits = next(steps)
        except StopIteration as done:
            return done.value
        getattr(waits, "close", bool)()
        raise InvalidRequestError("an event callback is a coroutine function; SimpleByzerLLM waits for none")


@lru_cache(maxsize=64)
def _vendor(found: _Deployment) -> Any:
    """The way to a vendor, made once: reading the certificates of authorities takes a while."""
    from byzerllm.vendor_http import Vendor

    return Vendor(found.name, found.base_url, found.api_key, found.model, found.https_verify)


def _read(response: LLMResponse, response_class: Any) -> LLMClassResponse:
    """The object that stands as JSON in an answer, or the reason why there is none."""
    from byzerllm.schema import reader
    from byzerllm.schema.shape import Shape

    shape = Shape.of(response_class)
    try:
        value = shape.value(reader.last(str(response.output)))
    except ValueError as error:
        return LLMClassResponse(response=response, value=None, metadata={"reason": str(error)})
    return LLMClassResponse(response=response, value=value, metadata={"reason": ""})


def _closed(items: Any) -> None:
    try:
        items.close()
    except ValueError:
        pass  # it is running in another thread
