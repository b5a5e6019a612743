"""The state of a client and the chain of `setup_*` methods."""

import os
from collections.abc import Callable, Generator, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.notices import say_once
from byzerllm.parameters import boolean, integer
from byzerllm.templates import RoleMapping, default_role_mapping
from byzerllm.types import EventCallback, EventName, InferBackend

Self = TypeVar("Self", bound="Settings")

_DEFAULT_MAX_OUTPUT_LENGTH = 1024

_PINNED_KINDS = ("embedding", "tokenizer", "apply_chat_template", "meta")

_MANY_REQUESTS = (InferBackend.VLLM, InferBackend.DeepSpeed)


def _default_sys_conf() -> dict[str, Any]:
    return {
        "pythonMode": "ray",
        "maxConcurrency": 1,
        "num_gpus": 1,
        "masterMaxConcurrency": 1000,
        "workerMaxConcurrency": 1,
        "infer_backend": InferBackend.Transformers,
    }


class Settings:
    """What a `ByzerLLM` remembers between calls. Every `setup_*` method returns the client, except
    `setup_reset`.

    Args:
        url: the server's http(s) address.
        kwargs: see `ByzerLLM`.

    Raises:
        InvalidRequestError: a switch or a length cannot be read.
        UnsupportedError: with `strict`, an argument has no effect.

    Example:
        >>> llm.setup_num_workers(1).setup_worker_concurrency(8).setup_default_model_name("chat")
        >>> llm.setup_max_input_length("chat", 2048).get_max_input_length("chat")
        2048
    """

    def __init__(self, url: str | None = None, **kwargs: Any) -> None:
        self.url = url
        self.verbose: bool = boolean("verbose", kwargs.pop("verbose", False))
        self.force_skip_context_length_check: bool = boolean(
            "force_skip_context_length_check", kwargs.pop("force_skip_context_length_check", False)
        )
        self.skip_nontext_check: bool = boolean("skip_nontext_check", kwargs.pop("skip_nontext_check", False))
        self.byzer_engine_url: str | None = kwargs.pop("byzer_engine_url", None)
        length = kwargs.pop("default_max_output_length", None)
        self._output_length_was_set = length is not None
        self.default_max_output_length: int = (
            _DEFAULT_MAX_OUTPUT_LENGTH if length is None else integer("default_max_output_length", length)
        )
        self._token: str | None = kwargs.pop("token", None)
        self.strict: bool = _switch("strict", "BYZERLLM_STRICT", kwargs)
        """Whether what has no effect here is refused instead of told."""
        self.ignore_unknown: bool = _switch("ignore_unknown", "BYZERLLM_IGNORE_UNKNOWN", kwargs)
        """Whether unknown parameters are dropped in silence, as Byzer-LLM does."""
        if kwargs:
            told = f"ByzerLLM(): these arguments have no effect: {', '.join(sorted(kwargs))}"
            if self.strict:
                raise UnsupportedError(f"strict: {told}; leave them out", param=min(kwargs))
            say_once(told)

        self.default_model_name: str | None = None
        self.default_emb_model_name: str | None = None
        self.default_rerank_model_name: str | None = None
        self.sys_conf: dict[str, Any] = _default_sys_conf()
        self._chosen: set[str] = set()
        self.context = SimpleNamespace(conf=self.sys_conf)
        self.ray_context = None

        self.default_role_mapping: RoleMapping = default_role_mapping()
        self.mapping_role_mapping: dict[str, RoleMapping] = {}
        self.mapping_extra_generation_params: dict[str, dict[str, Any]] = {}
        self.mapping_clean_func: dict[str, Callable[[str], str]] = {}
        self.mapping_auto_use_apply_chat_template: dict[str, bool] = {}
        self.mapping_max_model_length: dict[str, int] = {}
        self.mapping_max_input_length: dict[str, int] = {}
        self.mapping_max_output_length: dict[str, int] = {}
        self.mapping_base_system_message: dict[str, str] = {}
        self.mapping_function_calling_format_func: dict[str, Callable[..., str]] = {}
        self.mapping_response_class_format_func: dict[str, Callable[..., str]] = {}
        self.mapping_response_class_format_after_chat_func: dict[str, Callable[..., str]] = {}
        self.mapping_impl_func_format_func: dict[str, Callable[..., str]] = {}
        self.mapping_sys_function_calling_format_func: dict[str, Callable[..., str]] = {}
        self.mapping_sys_response_class_format_func: dict[str, Callable[..., str]] = {}
        self.mapping_sys_response_class_format_after_chat_func: dict[str, Callable[..., str]] = {}
        self.mapping_sys_impl_func_format_func: dict[str, Callable[..., str]] = {}
        self.meta_cache: dict[str, dict[str, Any]] = {}
        self.func_impl_cache: dict[str, Callable[..., Any]] = {}
        self.event_callbacks: dict[EventName, list[EventCallback]] = {}
        self.sub_clients: dict[str, Any] = {}
        self.pin_model_worker_mapping: Mapping[str, int] | None = None

    # Deployments to come.

    def setup_reset(self) -> None:
        """Forgets every choice about deployments to come: `sys_conf` is as in a new client."""
        self.sys_conf.clear()
        self.sys_conf.update(_default_sys_conf())
        self._chosen.clear()

    def setup(self: Self, name: str, value: Any) -> Self:
        """Sets one key of `sys_conf`, which the next `deploy` keeps with the deployment.

        A deployment is one instance on the CPU. `maxConcurrency` times `workerMaxConcurrency` limits its
        requests at a time, and `masterMaxConcurrency` those that wait; other keys that ask for something are
        named by `deploy` as without effect, or refused by a client with `strict=True`.

        Args:
            name: the key.
            value: what it is from now on.

        Example:
            >>> llm.setup("masterMaxConcurrency", 100).sys_conf["masterMaxConcurrency"]
            100
        """
        self.sys_conf[name] = value
        self._chosen.add(name)
        return self

    def setup_infer_backend(self: Self, backend: str) -> Self:
        """Names the engine that Byzer-LLM would have used. Kept as a label; ours runs the model.

        Args:
            backend: one of `InferBackend`. Its words for many requests let 100 run at a time, `transformers`
                one.
        """
        self.setup("infer_backend", backend)
        if backend in _MANY_REQUESTS or backend == InferBackend.Transformers:
            self.sys_conf["masterMaxConcurrency"] = 1000
            self.sys_conf["workerMaxConcurrency"] = 100 if backend in _MANY_REQUESTS else 1
        return self

    def setup_gpus_per_worker(self: Self, num_gpus: float) -> Self:
        """There is no GPU path: `deploy` says so unless it is 0.

        Args:
            num_gpus: GPUs per worker, possibly a fraction.
        """
        return self.setup("num_gpus", num_gpus)

    def setup_cpus_per_worker(self: Self, num_cpus: float) -> Self:
        """The engine takes every core: `deploy` says that this has no effect.

        Args:
            num_cpus: CPUs per worker, possibly a fraction.
        """
        return self.setup("num_cpus", num_cpus)

    def setup_worker_concurrency(self: Self, num: int) -> Self:
        """Limits the requests at a time: a deployment runs this times the number of workers.

        Args:
            num: requests that a worker runs at a time.
        """
        return self.setup("workerMaxConcurrency", num)

    def setup_num_workers(self: Self, num: int) -> Self:
        """How many workers a deployment has. Ours loads the weights once and batches; the number times
        `setup_worker_concurrency` is how many requests it runs at a time.

        Args:
            num: the number of workers.
        """
        return self.setup("maxConcurrency", num)

    def setup_load_balance_way(self: Self, way: str) -> Self:
        """How requests are spread over workers: the same thing for our one worker.

        Args:
            way: `"lru"` or `"round_robin"`.

        Raises:
            InvalidRequestError: it is neither.
        """
        if way not in ("lru", "round_robin"):
            raise InvalidRequestError(f'way must be "lru" or "round_robin", got {way!r}', param="way")
        return self.setup("load_balance", way)

    def setup_pin_model_worker_mapping(self: Self, mapping: Mapping[str, int]) -> Self:
        """Which worker serves which kind of request. With our one worker there is no choice, which is said
        once.

        Args:
            mapping: the index of a worker for `embedding`, `tokenizer`, `apply_chat_template` or `meta`.

        Raises:
            InvalidRequestError: a kind is unknown, or an index no whole number from 0 on.
        """
        for kind, worker in mapping.items():
            if kind not in _PINNED_KINDS:
                raise InvalidRequestError(
                    f"unknown kind {kind!r}; use {', '.join(_PINNED_KINDS)}", param="mapping"
                )
            if integer(kind, worker) < 0:
                raise InvalidRequestError(f"{kind} must be a worker's index, got {worker!r}", param="mapping")
        self.pin_model_worker_mapping = dict(mapping)
        if any(integer(kind, worker) != 0 for kind, worker in mapping.items()):
            say_once("setup_pin_model_worker_mapping has no effect: a deployment is one worker here")
        return self

    # Requests.

    def setup_default_model_name(self: Self, name: str) -> Self:
        """The model of every method that is not given one, except embeddings and rerankings.

        Args:
            name: the name of a deployment; it need not exist yet.
        """
        self.default_model_name = name
        return self

    def setup_default_emb_model_name(self: Self, name: str) -> Self:
        """The model of embeddings that name none.

        Args:
            name: the name of a deployment.
        """
        self.default_emb_model_name = name
        return self

    def setup_default_re_rank_model_name(self: Self, name: str) -> Self:
        """The model of rerankings that name none; without one it is the default model of embeddings.

        Args:
            name: the name of a deployment.
        """
        self.default_rerank_model_name = name
        return self

    def setup_max_model_length(self: Self, model: str, length: int) -> Self:
        """Limits prompt and answer together; an answer is cut to what the prompt leaves.

        Args:
            model: the name of the deployment.
            length: tokens, at least 1.

        Raises:
            InvalidRequestError: `length` is no such number.
        """
        self.mapping_max_model_length[model] = _length("max_model_length", length)
        return self

    def setup_max_input_length(self: Self, model: str, length: int) -> Self:
        """Limits prompts; a longer one raises `TooLargeError` before anything is sent.

        Args:
            model: the name of the deployment.
            length: tokens, at least 1.

        Raises:
            InvalidRequestError: `length` is no such number.
        """
        self.mapping_max_input_length[model] = _length("max_input_length", length)
        return self

    def setup_max_output_length(self: Self, model: str, length: int) -> Self:
        """Limits answers where the request does not say.

        Args:
            model: the name of the deployment.
            length: new tokens, at least 1.

        Raises:
            InvalidRequestError: `length` is no such number.
        """
        self.mapping_max_output_length[model] = _length("max_output_length", length)
        return self

    def get_max_model_length(self, model: str) -> int | None:
        """What `setup_max_model_length` set, in tokens, or `None`.

        Args:
            model: the name of the deployment.

        Example:
            >>> llm.setup_max_model_length("chat", 4096).get_max_model_length("chat")
            4096
        """
        return self.mapping_max_model_length.get(model)

    def get_max_input_length(self, model: str) -> int | None:
        """What `setup_max_input_length` set, in tokens, or `None`.

        Args:
            model: the name of the deployment.

        Example:
            >>> llm.setup_max_input_length("chat", 2048).get_max_input_length("chat")
            2048
        """
        return self.mapping_max_input_length.get(model)

    def get_max_output_length(self, model: str) -> int:
        """What `setup_max_output_length` set, in tokens, or the client's default (1024 unless chosen).

        Args:
            model: the name of the deployment.

        Example:
            >>> ByzerLLM(default_max_output_length=256).get_max_output_length("chat")
            256
        """
        return self.mapping_max_output_length.get(model, self.default_max_output_length)

    def setup_role_mapping(self: Self, model: str, role_mapping: RoleMapping) -> Self:
        """Renders this model's prompts on the client, with these words around the messages.

        Args:
            model: the name of the deployment.
            role_mapping: `user_role`, `assistant_role`, `system_msg`, and `user_role_func`,
                `assistant_role_func`, `system_msg_func` for functions of `t`, the mapping's word, and `v`,
                the content.

        Example:
            >>> llm.setup_role_mapping("base", {"user_role": "Question: ", "assistant_role": "Answer: "})
        """
        self.mapping_role_mapping[model] = role_mapping
        self.mapping_auto_use_apply_chat_template.pop(model, None)
        return self

    def setup_extra_generation_params(
        self: Self, model: str, extra_generation_params: Mapping[str, Any]
    ) -> Self:
        """Adds generation keys to every request for the model; later ones win, and `llm_config` wins over
        all.

        Args:
            model: the name of the deployment.
            extra_generation_params: keys as in `llm_config`; they are checked when a request is made.
        """
        known = self.mapping_extra_generation_params.get(model, {})
        self.mapping_extra_generation_params[model] = {**known, **extra_generation_params}
        return self

    def setup_base_system_messages(self: Self, model: str, base_system_message: str) -> Self:
        """The text that `enable_default_sys_message=True` puts first, in the place of the one that explains
        what the call asks for (`byzerllm.utils.base_ability_format`).

        Args:
            model: the name of the deployment.
            base_system_message: the text.
        """
        self.mapping_base_system_message[model] = base_system_message
        return self

    def setup_function_calling_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """How a prompt that offers tools is written. The model's own format for tools is then not used.

        Args:
            model: the name of the deployment.
            func: `func(prompt, tools, tool_choice)`, in the place of
                `byzerllm.utils.function_calling_format`.
        """
        self.mapping_function_calling_format_func[model] = func
        return self

    def setup_response_class_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """How a prompt that asks for a class is written.

        Args:
            model: the name of the deployment.
            func: `func(prompt, cls=response_class)`, in the place of `byzerllm.utils.response_class_format`.
        """
        self.mapping_response_class_format_func[model] = func
        return self

    def setup_response_class_format_after_chat_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """How a prompt that turns an answer into a class is written.

        Args:
            model: the name of the deployment.
            func: `func(response_class)`, in the place of `byzerllm.utils.response_class_format_after_chat`.
        """
        self.mapping_response_class_format_after_chat_func[model] = func
        return self

    def setup_impl_func_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """How a prompt that asks for a function's code is written.

        Args:
            model: the name of the deployment.
            func: `func(prompt, function, response_class)`, in the place of
                `byzerllm.utils.function_impl_format`.
        """
        self.mapping_impl_func_format_func[model] = func
        return self

    def setup_sys_function_calling_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """Like `setup_function_calling_format_func`, with the default system message.

        Args:
            model: the name of the deployment.
            func: `func(prompt, tools, tool_choice)`.
        """
        self.mapping_sys_function_calling_format_func[model] = func
        return self

    def setup_sys_response_class_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """Like `setup_response_class_format_func`, with the default system message.

        Args:
            model: the name of the deployment.
            func: `func(prompt, cls=response_class)`.
        """
        self.mapping_sys_response_class_format_func[model] = func
        return self

    def setup_sys_response_class_format_after_chat_func(
        self: Self, model: str, func: Callable[..., str]
    ) -> Self:
        """Like `setup_response_class_format_after_chat_func`, with the default system message.

        Args:
            model: the name of the deployment.
            func: `func(response_class)`.
        """
        self.mapping_sys_response_class_format_after_chat_func[model] = func
        return self

    def setup_sys_impl_func_format_func(self: Self, model: str, func: Callable[..., str]) -> Self:
        """Like `setup_impl_func_format_func`, with the default system message.

        Args:
            model: the name of the deployment.
            func: `func(prompt, function, response_class)`.
        """
        self.mapping_sys_impl_func_format_func[model] = func
        return self

    # Companions.

    def setup_sub_client(self: Self, name: str, client: Any = None) -> Self:
        """Remembers a helper client, or a list of them, under a name.

        Args:
            name: the name, such as `"code_model"`.
            client: the client; `None` forgets it.
        """
        if client is None:
            return self.remove_sub_client(name)
        self.sub_clients[name] = client
        return self

    def get_sub_client(self, name: str) -> Any:
        """The helper client of a name, or `None`.

        Args:
            name: what `setup_sub_client` was given.

        Example:
            >>> llm.setup_sub_client("code_model", ByzerLLM()).get_sub_client("code_model")
        """
        return self.sub_clients.get(name)

    def remove_sub_client(self: Self, name: str) -> Self:
        """Forgets a helper client; a missing one is no error.

        Args:
            name: what `setup_sub_client` was given.

        Example:
            >>> llm.remove_sub_client("code_model").get_sub_client("code_model") is None
            True
        """
        self.sub_clients.pop(name, None)
        return self

    def add_event_callback(self, event_name: EventName, callback: EventCallback) -> None:
        """Runs a function around each chat.

        Before a call the value is the list of requests, and `(False, results)` answers in the model's place.
        After it the value is the list of results, and `(False, results)` replaces them; the text of a stream
        is given out by then and stays. The async methods also take coroutine functions.

        Args:
            event_name: when: before or after the model is called.
            callback: `callback(client, model, value)`; it returns `(True, None)` to go on.

        Raises:
            InvalidRequestError: the event is no `EventName`, or the callback cannot be called.

        Example:
            >>> def told(client, model, results):
            ...     print(results[0]["metadata"]["generated_tokens_count"])
            ...     return True, None
            >>> llm.add_event_callback(EventName.AFTER_CALL_MODEL, told)
        """
        if not isinstance(event_name, EventName):
            raise InvalidRequestError(
                f"event_name must be an EventName, got {event_name!r}", param="event_name"
            )
        if not callable(callback):
            raise InvalidRequestError(f"callback must be callable, got {callback!r}", param="callback")
        self.event_callbacks.setdefault(event_name, []).append(callback)

    def _trigger(self, event_name: EventName, *arguments: Any) -> Generator[Any, Any, Any]:
        """Runs the callbacks of an event and yields what they return where that must be awaited."""
        for callback in self.event_callbacks.get(event_name, []):
            result: Any = callback(self, *arguments)
            if hasattr(result, "__await__"):
                result = yield result
            proceed, value = _callback_result(result)
            if not proceed and value is not None:
                return value
        return None


def _switch(name: str, variable: str, kwargs: dict[str, Any]) -> bool:
    """A choice of the program, else of the environment."""
    if name in kwargs:
        return boolean(name, kwargs.pop(name))
    return boolean(variable, os.environ.get(variable, ""))


def _length(name: str, length: Any) -> int:
    value = integer(name, length)
    if value < 1:
        raise InvalidRequestError(f"{name} must be at least 1, got {length!r}", param=name)
    return value


def _callback_result(result: Any) -> tuple[bool, Any]:
    if result is None:
        return True, None
    if isinstance(result, tuple) and len(result) == 2:
        return bool(result[0]), result[1]
    raise InvalidRequestError(
        f"an event callback must return (True, None) to go on or (False, value) to replace, got {result!r}"
    )
