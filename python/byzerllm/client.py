"""`ByzerLLM`: deploys models and talks to them.

Where a model lives is decided at the first call: an http(s) `url`, else `BYZERLLM_URL`, else a running server of this
user, else one engine shared by the whole process.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from byzerllm import answers, running
from byzerllm import conversation as talk
from byzerllm.asking import Asking, Config, Item, unchanged
from byzerllm.display import Responses
from byzerllm.errors import (
    CancelledError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from byzerllm.implementations import Implementations
from byzerllm.embedding import Embedding
from byzerllm.not_yet import NotYet
from byzerllm.notices import say_once
from byzerllm.prompts.method import PromptMethod
from byzerllm.sql import SqlBridge
from byzerllm.stepping import Ask, Steps
from byzerllm.templates import RoleMapping, Template, Templates, render
from byzerllm.types import (
    LLMClassResponse,
    LLMFunctionCallResponse,
    LLMMetadata,
    LLMRequest,
    LLMResponse,
    StreamItem,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from byzerllm.stepping import Options

_NO_MODEL = "Use llm.setup_default_model_name to setup default model name or setup the model parameter"


class ByzerLLM(Implementations, Asking, Embedding, PromptMethod, SqlBridge, NotYet):
    """A client. Cheap to make: many may live in one process, and those without a server share one engine.

    `setup_*` methods return the client, so that they can follow one another.

    Args:
        url: the server's http(s) address; else `BYZERLLM_URL`, a running server of this user, or this
            process.
        kwargs: `token` (the key sent to the server), `verbose` (prints every request), `strict` (refuses what
            has no effect), `ignore_unknown` (drops unknown keys), `default_max_output_length` (tokens; 1024
            unless given), `force_skip_context_length_check`, `skip_nontext_check`, `byzer_engine_url` (for
            `apply_sql_func`).

    Raises:
        InvalidRequestError: a switch or a length cannot be read.
        UnsupportedError: with `strict`, an argument has no effect.

    Example:
        >>> llm = ByzerLLM(url="http://127.0.0.1:8000").setup_default_model_name("chat")
        >>> llm.setup_max_output_length("chat", 256).setup_extra_generation_params("chat", {"temperature": 0})
        >>> llm.chat_oai("What is the capital of France?")[0].output
        'The capital of France is Paris.'
    """

    @staticmethod
    def from_default_model(model: str, auto_connect_cluster: bool = True) -> "ByzerLLM":
        """A client whose default model this is, with the model's own template.

        Args:
            model: the name of a deployment; it need not exist yet.
            auto_connect_cluster: has no effect: there is no cluster to connect to.

        Example:
            >>> ByzerLLM.from_default_model("chat").default_model_name
            'chat'
        """
        return ByzerLLM().setup_template(model, "auto").setup_default_model_name(model)

    # Deployments.

    def deploy(
        self,
        model_path: str = "",
        pretrained_model_type: str = "custom/auto",
        udf_name: str = "",
        infer_params: Config = {},
    ) -> dict[str, Any]:
        """Loads a model under a name and returns what `get_meta` says about it; the same name replaces.

        Args:
            model_path: a GGUF file or a checkpoint's directory; a relative path starts here.
            pretrained_model_type: what kind of model it is; `custom/auto` looks into the files.
            udf_name: the name that chats and `undeploy` use.
            infer_params: parameters of the deployment, as numbers or strings; unknown ones are refused.

        Raises:
            InvalidRequestError: a name, type or parameter cannot be read or is unknown.
            UnsupportedError: this version cannot run the model, or with `strict` a choice has no effect.
            UnauthenticatedError, PermissionDeniedError: the server takes no deployments from this client.
            UnavailableError: the server is out of reach.

        Example:
            >>> llm.setup_num_workers(1).setup_worker_concurrency(8)
            >>> llm.deploy("/models/qwen", udf_name="chat")["support_chat_template"]
            True
        """
        from byzerllm import _native

        path = os.fspath(model_path)
        translated = _native.translate(
            {
                "name": udf_name,
                "model": os.path.abspath(os.path.expanduser(path)) if path else "",
                "pretrained_model_type": pretrained_model_type or "",
                "infer_params": infer_params,
                "sys_conf": {key: value for key, value in self.sys_conf.items() if key in self._chosen},
                "strict": self.strict,
                "ignore_unknown": self.ignore_unknown,
            }
        )
        if translated["notice"]:
            say_once(translated["notice"])
        endpoint = self._endpoint
        status = endpoint.deploy(translated["spec"])
        self._forget(udf_name)
        architectures = (status.get("info") or {}).get("architectures", [])
        oddity = _native.mismatch(pretrained_model_type or "", architectures)
        if oddity:
            say_once(f"{udf_name}: {oddity}")
        if endpoint.embedded:
            say_once(
                "deployments made here end with this process; to keep them, run `byzerllm serve` first: "
                "programs of this user find it by themselves"
            )
        return self.get_meta(udf_name)

    def undeploy(self, udf_name: str, force: bool = False) -> None:
        """Removes a deployment after its running requests. A missing one is no error.

        Args:
            udf_name: the name of the deployment.
            force: ends running requests at once; otherwise they have 30 seconds.

        Raises:
            UnauthenticatedError, PermissionDeniedError: the server takes no such order from this client.

        Example:
            >>> llm.undeploy("chat", force=True)
        """
        self._forget(udf_name)
        try:
            self._endpoint.undeploy(udf_name, 0.0 if force else 30.0)
        except NotFoundError:
            pass

    def load_adapter(self, udf_name: str, name: str, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Loads a LoRA adapter in PEFT's format beside a running model; `model="udf_name:name"` uses it.

        Args:
            udf_name: the name of the deployment.
            name: what to call the adapter.
            path: its directory; a relative path starts here.

        Raises:
            NotFoundError: there is no such deployment or directory.
            InvalidRequestError, UnsupportedError: the adapter does not fit the model.
            ConflictError: the deployment has an adapter of this name.
            UnauthenticatedError, PermissionDeniedError: the server takes no such order from this client.

        Example:
            >>> llm.load_adapter("chat", "french", "/adapters/french")["rank"]
            16
        """
        directory = os.path.abspath(os.path.expanduser(os.fspath(path)))
        return self._endpoint.load_adapter(udf_name, name, directory)

    def unload_adapter(self, udf_name: str, name: str) -> None:
        """Refuses new requests for an adapter at once, and returns when the running ones have ended.

        Args:
            udf_name: the name of the deployment.
            name: the adapter.

        Raises:
            NotFoundError: there is no such deployment or adapter.
            UnauthenticatedError, PermissionDeniedError: the server takes no such order from this client.

        Example:
            >>> llm.unload_adapter("chat", "french")
        """
        self._forget(f"{udf_name}:{name}")
        self._endpoint.unload_adapter(udf_name, name)

    def adapters(self, udf_name: str) -> list[dict[str, Any]]:
        """The LoRA adapters that requests of a deployment can use.

        Args:
            udf_name: the name of the deployment.

        Raises:
            NotFoundError: there is no such deployment.
            UnauthenticatedError, PermissionDeniedError: the server does not tell this client.

        Example:
            >>> [adapter["name"] for adapter in llm.adapters("chat")]
            ['french']
        """
        return self._endpoint.adapters(udf_name)

    def is_model_exist(self, udf_name: str) -> bool:
        """Whether a deployment exists, ready or not.

        Args:
            udf_name: the name of the deployment.

        Raises:
            UnavailableError: the server is out of reach.

        Example:
            >>> llm.is_model_exist("chat")
            True
        """
        try:
            self._endpoint.model(udf_name)
        except NotFoundError:
            return False
        except UnavailableError:
            # A model that is loading or failed exists; a server out of reach fails here again.
            try:
                return any(status["spec"]["name"] == udf_name for status in self._endpoint.list())
            except (UnauthenticatedError, PermissionDeniedError):
                return True
        return True

    @property
    def metadata(self) -> LLMMetadata:
        """What is known about the default model; `context_window` is in tokens, 8192 where it does not say.

        Raises:
            InvalidRequestError: there is no default model.
            NotFoundError: it is not deployed.

        Example:
            >>> llm.metadata.context_window
            8192
        """
        meta = self.get_meta()
        length = meta["max_model_len"]
        return LLMMetadata(
            context_window=length if length > 0 else 8192,
            is_chat_model=bool(meta["support_chat_template"]),
            model_name=self._model(None),
        )

    def require_template(self, model: str) -> bool:
        """Whether prompts for a model need a template of the client because it has none of its own.

        Args:
            model: the name of the deployment.

        Raises:
            NotFoundError: there is no such deployment.

        Example:
            >>> llm.require_template("chat")
            False
        """
        meta = self.get_meta(model)
        return not (
            meta.get("model_deploy_type") == "saas"
            or meta.get("message_format")
            or meta.get("support_chat_template")
        )

    # Templates.

    def setup_template(self, model: str, template: str | Template) -> "ByzerLLM":
        """Chooses how prompts are rendered.

        Without a choice, a model that has a template uses it, and another one gets `User:` and `Assistant:`
        lines.

        Args:
            model: the name of the deployment; with `"auto"` it need not exist yet.
            template: `"auto"` for the model's own template, or a `Template`.

        Raises:
            InvalidRequestError: `template` is neither.

        Example:
            >>> llm.setup_template("chat", "auto").setup_template("base", Templates.qwen())
        """
        if isinstance(template, Template):
            self.setup_role_mapping(model, template.role_mapping)
            self.setup_extra_generation_params(model, template.generation_config)
            self.mapping_clean_func[model] = template.clean_func
            for name, func in template.own_formats.items():
                getattr(self, f"mapping_{name}")[model] = func
            return self
        if template != "auto":
            raise InvalidRequestError(
                f'template must be "auto" or a Template, got {template!r}', param="template"
            )
        try:
            meta = self.get_meta(model)
        except (NotFoundError, UnavailableError):
            # Not there yet; the model's own template is looked for again when a chat starts.
            meta = {"support_chat_template": True}
        if meta.get("model_deploy_type") == "saas" or meta.get("message_format"):
            return self
        if "QWenLMHeadModel" in meta.get("architectures", []) and not meta.get("support_chat_template"):
            return self.setup_template(model, Templates.qwen())
        if not meta.get("support_chat_template"):
            say_once(f"{model} has no chat template; its prompts are `User:` and `Assistant:` lines")
        self.mapping_role_mapping.pop(model, None)
        self.mapping_clean_func.pop(model, None)
        self.mapping_auto_use_apply_chat_template[model] = True
        return self

    def generate_instruction_from_history(
        self,
        model: str,
        conversations: talk.Conversations,
        role_mapping: Mapping[str, Any] = {"user_role": "User:", "assistant_role": "Assistant:"},
    ) -> str:
        """The prompt that a conversation becomes, as text.

        Args:
            model: the name of the deployment, whose own template is used after `setup_template(model,
                "auto")`.
            conversations: messages with roles, or one user message as a string.
            role_mapping: the words around the messages otherwise; see `setup_role_mapping`.

        Raises:
            InvalidRequestError: the conversation is empty or malformed.
            NotFoundError: there is no such deployment.

        Example:
            >>> llm.generate_instruction_from_history("base", [{"role": "user", "content": "Hello"}])
            'User:Hello\\nAssistant:'
        """
        meta = self.get_meta(model)
        history = talk.messages(conversations)
        if self.mapping_auto_use_apply_chat_template.get(model) and meta.get("support_chat_template"):
            return self._endpoint.apply_template(model, talk.for_engine(history), True)
        return render(history, role_mapping)

    def apply_chat_template(self, model: str, s: str | talk.Conversations, llm_config: Config = {}) -> str:
        """Renders messages with the model's own template.

        Args:
            model: the name of the deployment.
            s: messages with roles, as a list or as its JSON.
            llm_config: not read.

        Raises:
            InvalidRequestError: `s` is no JSON of messages.
            UnsupportedError: the model has no template.

        Example:
            >>> llm.apply_chat_template("chat", [{"role": "user", "content": "Hello"}])
            '<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n'
        """
        if isinstance(s, str):
            import json

            try:
                s = json.loads(s)
            except ValueError as error:
                raise InvalidRequestError(
                    f"s must be the JSON of a list of messages: {error}", param="s"
                ) from None
        history = talk.for_engine(talk.messages(s))
        return self._endpoint.apply_template(self._model(model), history, True)

    def tokenize(self, model: str | None, s: str, llm_config: Config = {}) -> list[LLMResponse]:
        """The token ids of a text, as `[0].output[0]`.

        Args:
            model: the name of the deployment; `None` for the default model.
            s: the text; no template is applied.
            llm_config: not read.

        Raises:
            NotFoundError: there is no such deployment.

        Example:
            >>> len(llm.tokenize("chat", "Hello")[0].output[0])
            1
        """
        ids = self._endpoint.tokenize(self._model(model), s)
        return [LLMResponse(output=[ids], input={"instruction": s, "tokenizer": True})]

    # Chats.

    @overload
    def chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = ...,
        tool_choice: Any = ...,
        *,
        execute_tool: Literal[True],
        **options: "Unpack[Options]",
    ) -> list[LLMFunctionCallResponse]: ...

    @overload
    def chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = ...,
        tool_choice: Any = ...,
        execute_tool: Literal[False] = ...,
        *,
        response_class: None = ...,
        **options: "Unpack[Options]",
    ) -> list[LLMResponse]: ...

    @overload
    def chat_oai(
        self, conversations: talk.Conversations, *, response_class: Any, **options: "Unpack[Options]"
    ) -> list[LLMClassResponse]: ...

    def chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = [],
        tool_choice: Any = None,
        execute_tool: bool = False,
        impl_func: Callable[..., Any] | None = None,
        execute_impl_func: bool = False,
        impl_func_params: dict[str, Any] | None = None,
        func_params: dict[str, Any] | None = None,
        response_class: Any = None,
        response_after_chat: bool = False,
        enable_default_sys_message: bool = False,
        model: str | None = None,
        role_mapping: RoleMapping | None = None,
        llm_config: Config = {},
        only_return_prompt: bool = False,
        extra_request_params: Config = {},
    ) -> Any:
        """Continues a conversation and returns the answers, as many as `n` of `llm_config` asks for.

        With `execute_tool` each answer is an `LLMFunctionCallResponse` with what the functions returned in
        `values`; with `response_class` an `LLMClassResponse` with an object in `value`. `metadata["reason"]`
        says what went wrong. Otherwise each is an `LLMResponse`; its `metadata` counts tokens, gives
        milliseconds in `time_cost` and `first_token_time`, and tokens per second in `speed`.

        Args:
            conversations: messages with roles, or one user message as a string.
            tools: functions that the model may call, or their JSON.
            tool_choice: one that it must call (a function, its name), `"required"`, `"auto"` or `"none"`.
            execute_tool: calls what the model asks for.
            impl_func: a function, or its name, that the model is to write; needs `response_class`.
            execute_impl_func: runs what it wrote, in the sandbox.
            impl_func_params: its arguments; `func_params` unless given.
            func_params: arguments of tools that the program gives itself; the model does not see them.
            response_class: a class, a type or a JSON Schema that the answer is to fit. Not together with
                tools.
            response_after_chat: makes the object of a first, free answer.
            enable_default_sys_message: explains tools and classes to the model in the system message.
            model: the name of the deployment; the default model unless given.
            role_mapping: renders the prompt here, with these words around the messages; see
                `setup_role_mapping`.
            llm_config: generation keys like `temperature`, `max_length` (new tokens), `stop`, `timeout_s`
                (seconds).
            only_return_prompt: asks no model; the prompt is in `input`.
            extra_request_params: for vendors; byzerllm's own engine reads none, which is said once.

        Raises:
            InvalidRequestError: arguments do not go together, a generation key is unknown or out of range.
            NotFoundError: there is no such deployment.
            TooLargeError: the prompt is longer than the model or the client allows.
            OverloadedError: too many requests wait; `retry_after` is in seconds.
            DeadlineExceededError: `timeout_s` passed.
            UnavailableError: the model is loading, or the server out of reach.

        Example:
            >>> llm.chat_oai("The last three days", tools=[compute_date_range], execute_tool=True)[0].values
            [['2026-01-01 10:00:00', '2026-01-04 10:00:00']]
        """
        steps = self._chat_steps(
            conversations,
            tools,
            tool_choice,
            execute_tool,
            impl_func,
            execute_impl_func,
            impl_func_params,
            func_params,
            response_class,
            response_after_chat,
            enable_default_sys_message,
            model,
            role_mapping,
            llm_config,
            only_return_prompt,
            extra_request_params,
        )
        return Responses(self._do(steps))

    @overload
    async def async_chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = ...,
        tool_choice: Any = ...,
        *,
        execute_tool: Literal[True],
        **options: "Unpack[Options]",
    ) -> list[LLMFunctionCallResponse]: ...

    @overload
    async def async_chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = ...,
        tool_choice: Any = ...,
        execute_tool: Literal[False] = ...,
        *,
        response_class: None = ...,
        **options: "Unpack[Options]",
    ) -> list[LLMResponse]: ...

    @overload
    async def async_chat_oai(
        self, conversations: talk.Conversations, *, response_class: Any, **options: "Unpack[Options]"
    ) -> list[LLMClassResponse]: ...

    async def async_chat_oai(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any] = [],
        tool_choice: Any = None,
        execute_tool: bool = False,
        impl_func: Callable[..., Any] | None = None,
        execute_impl_func: bool = False,
        impl_func_params: dict[str, Any] | None = None,
        func_params: dict[str, Any] | None = None,
        response_class: Any = None,
        response_after_chat: bool = False,
        enable_default_sys_message: bool = False,
        model: str | None = None,
        role_mapping: RoleMapping | None = None,
        llm_config: Config = {},
        only_return_prompt: bool = False,
        extra_request_params: Config = {},
    ) -> Any:
        """`chat_oai` for an event loop, which it never blocks. Thousands may wait at once: none holds a
        thread.

        Tools may be coroutine functions; others run in a thread. Cancelling the task stops the work.

        Args:
            conversations, tools, tool_choice, execute_tool, impl_func, execute_impl_func, impl_func_params,
                func_params, response_class, response_after_chat, enable_default_sys_message, model,
                role_mapping, llm_config, only_return_prompt, extra_request_params: as in `chat_oai`.

        Raises:
            What `chat_oai` raises, and asyncio's own `CancelledError` in a cancelled task.

        Example:
            >>> [answer] = await llm.async_chat_oai("What is the capital of France?")
        """
        steps = self._chat_steps(
            conversations,
            tools,
            tool_choice,
            execute_tool,
            impl_func,
            execute_impl_func,
            impl_func_params,
            func_params,
            response_class,
            response_after_chat,
            enable_default_sys_message,
            model,
            role_mapping,
            llm_config,
            only_return_prompt,
            extra_request_params,
        )
        return Responses(await self._do_later(steps))

    def _chat_steps(
        self,
        conversations: talk.Conversations,
        tools: Sequence[Any],
        tool_choice: Any,
        execute_tool: bool,
        impl_func: Callable[..., Any] | None,
        execute_impl_func: bool,
        impl_func_params: dict[str, Any] | None,
        func_params: dict[str, Any] | None,
        response_class: Any,
        response_after_chat: bool,
        enable_default_sys_message: bool,
        model: str | None,
        role_mapping: RoleMapping | None,
        llm_config: Config,
        only_return_prompt: bool,
        extra_request_params: Config,
    ) -> Steps[list[Any]]:
        """What `chat_oai` does."""
        model = self._model(model, _NO_MODEL)
        wants_tools = bool(tools) or tool_choice is not None
        if wants_tools and response_class is not None:
            raise InvalidRequestError("function calling is enabled,response_class should not be set.")
        if impl_func is not None and response_class is None:
            raise InvalidRequestError("impl_func is enabled,response_class should be set.")
        ask = Ask(
            model,
            role_mapping,
            llm_config,
            extra_request_params,
            enable_default_sys_message,
            only_return_prompt,
        )
        history = talk.messages(conversations)
        if enable_default_sys_message:
            ability = _ability(wants_tools, impl_func is not None, response_class is not None)
            history = self._with_abilities(model, history, ability)
        if wants_tools or (execute_tool and impl_func is None and response_class is None):
            from byzerllm import calling

            return (
                yield from calling.steps(self, ask, history, tools, tool_choice, execute_tool, func_params)
            )
        if impl_func is not None:
            from byzerllm import implementations

            params = impl_func_params or func_params
            return (
                yield from implementations.steps(
                    self, ask, history, impl_func, execute_impl_func, params, response_class
                )
            )
        if response_class is not None:
            from byzerllm import classes

            return (yield from classes.steps(self, ask, history, response_class, response_after_chat))
        return (yield from self._ask(ask, history))

    def execute_function_calling(
        self, response: LLMResponse, tools: Sequence[Any], func_params: Mapping[str, Any] | None = None
    ) -> LLMFunctionCallResponse:
        """Calls the tools that an answer of `chat_oai(tools=…)` asks for. A call that fails is told in
        `metadata`.

        Args:
            response: the answer.
            tools: the functions that were offered.
            func_params: arguments that the program gives itself; they win over the model's.

        Raises:
            InvalidRequestError: two tools have one name, none takes one of `func_params`, or one is a
                coroutine function.

        Example:
            >>> response = llm.chat_oai("What time is it?", tools=[compute_now])[0]
            >>> llm.execute_function_calling(response, [compute_now]).values
            ['2026-01-04 10:00:00']
        """
        from byzerllm import calling
        from byzerllm.schema.tool import tools_of

        return self._do(calling.executed(response, tools_of(tools, func_params or {}), func_params))

    def execute_response_format(self, response: LLMResponse, response_class: Any) -> LLMClassResponse:
        """The object of a class that an answer's JSON stands for; `value` is `None` where there is none.

        Args:
            response: the answer.
            response_class: a class, a type or a JSON Schema, as in `chat_oai`.

        Raises:
            InvalidRequestError: `response_class` is none of these.

        Example:
            >>> response = llm.chat_oai('Write the JSON {"title": "…"} of a story.')[0]
            >>> llm.execute_response_format(response, Story).value.title
            'The Brave Rabbit'
        """
        from byzerllm import classes
        from byzerllm.schema.shape import Shape

        return classes.executed(response, Shape.of(response_class))

    def response(
        self, instruction: str | None = None, model: str | None = None, verbose: bool | None = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Makes a function of one text that returns what the model makes of the text, an object of its return
        annotation.

        `None` stands for an answer that is no such object. A coroutine function is awaited.

        Args:
            instruction: becomes the system message.
            model: the name of the deployment; the default model unless given.
            verbose: prints the answers; the client's `verbose` otherwise.

        Raises:
            InvalidRequestError: the function takes something else than one string, or returns no pydantic
                class.

        Example:
            >>> @llm.response()
            ... def story(text: str) -> Story: "A story about the text."
            >>> story("a brave rabbit").title
            'The Brave Rabbit'
        """
        from byzerllm import classes

        return classes.decorator(self, instruction, model, verbose)

    def stream_chat_oai(
        self,
        conversations: talk.Conversations,
        model: str | None = None,
        role_mapping: RoleMapping | None = None,
        delta_mode: bool | Config = False,
        llm_config: Config = {},
        extra_request_params: Config = {},
    ) -> Iterator[StreamItem]:
        """Streams one answer as pairs of a text and what is known; all pairs share one `SingleOutputMeta`.

        Nothing is asked before the first item is. Closing the generator, or dropping it, stops the work.

        Args:
            conversations: messages with roles, or one user message as a string.
            model: the name of the deployment; the default model unless given.
            role_mapping: renders the prompt here, with these words around the messages.
            delta_mode: the text is the new part; otherwise all of it so far.
            llm_config: generation keys as in `chat_oai`; `timeout_s` (seconds) is for the whole answer.
            extra_request_params: as in `chat_oai`.

        Raises:
            UnsupportedError: `n` is above 1.
            What `chat_oai` raises, at the step where it happens.

        Example:
            >>> for text, meta in llm.stream_chat_oai("What is the capital of France?", delta_mode=True):
            ...     print(text, end="", flush=True)
        """
        delta_mode, llm_config = _in_either_order(delta_mode, llm_config)
        model = self._model(model, _NO_MODEL)
        item, request = self._do(
            self._stream_request(model, conversations, role_mapping, llm_config, extra_request_params)
        )
        clean = self.mapping_clean_func.get(model, unchanged)
        results = self._do(self._before(model, [item]))
        if results is not None:
            yield from answers.given(self._do(self._after(model, results)), clean)
            return
        call = self._endpoint.chat(request["request"], request["timeout"])
        fold = answers.Fold(clean, delta_mode)
        try:
            for event in call:
                made = fold.item(event, call)
                if made is not None:
                    yield made
        except CancelledError:
            if not fold.was_aborted():
                raise
        finally:
            call.cancel()
        self._do(self._after(model, fold.results(item)))

    async def async_stream_chat_oai(
        self,
        conversations: talk.Conversations,
        role_mapping: RoleMapping | None = None,
        model: str | None = None,
        delta_mode: bool | Config = False,
        llm_config: Config = {},
        extra_request_params: Config = {},
    ) -> AsyncIterator[StreamItem]:
        """`stream_chat_oai` for an event loop, which it never blocks. Cancelling the task stops the work.

        Args:
            conversations, role_mapping, model, delta_mode, llm_config, extra_request_params: as in
                `stream_chat_oai`. By position, `role_mapping` comes before `model` here, as in Byzer-LLM.

        Raises:
            What `stream_chat_oai` raises, and asyncio's own `CancelledError` in a cancelled task.

        Example:
            >>> async for text, meta in llm.async_stream_chat_oai("Hello", delta_mode=True):
            ...     print(text, end="", flush=True)
        """
        from byzerllm import event_loop

        delta_mode, llm_config = _in_either_order(delta_mode, llm_config)
        model = self._model(model, _NO_MODEL)
        item, request = await self._do_later(
            self._stream_request(model, conversations, role_mapping, llm_config, extra_request_params)
        )
        clean = self.mapping_clean_func.get(model, unchanged)
        results = await self._do_later(self._before(model, [item]))
        if results is not None:
            for given in answers.given(await self._do_later(self._after(model, results)), clean):
                yield given
            return
        endpoint = await self._reach()
        call = await event_loop.run(endpoint.chat_later, request["request"], request["timeout"])
        fold = answers.Fold(clean, delta_mode)
        try:
            while events := await event_loop.run(call.events_later):
                for event in events:
                    made = fold.item(event, call)
                    if made is not None:
                        yield made
        except CancelledError:
            if not fold.was_aborted():
                raise
        finally:
            call.cancel()
        await self._do_later(self._after(model, fold.results(item)))

    def abort(self, request_id: str, model: str | None = None) -> bool:
        """Ends a stream of this process: who reads it sees it end, with the finish reason `abort`.

        Args:
            request_id: `meta.extra_info["request_id"]` of the stream.
            model: not needed.

        Returns whether there was one; a stream that has ended is none.

        Example:
            >>> text, meta = next(stream)
            >>> llm.abort(meta.extra_info["request_id"])
            True
        """
        return running.abort(request_id)

    def chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Config = {}
    ) -> list[LLMResponse]:
        """The older form of a chat: instructions without history, one answer each.

        Args:
            model: the name of the deployment; `None` for the default model.
            request: one text, or an `LLMRequest` of one or several with their sampling parameters.
            extract_params: generation keys, which win over those of the request.

        Raises:
            What `chat_oai` raises.

        Example:
            >>> request = LLMRequest(instruction="What is the capital of France?", max_length=32)
            >>> llm.chat("chat", request)[0].output
            'The capital of France is Paris.'
        """
        model = self._model(model)
        if isinstance(request, str):
            request = LLMRequest(instruction=request)
        instructions = request.instruction if isinstance(request.instruction, list) else [request.instruction]
        mapping = self.mapping_role_mapping.get(model, self.default_role_mapping)
        system = self.default_role_mapping["system_msg"]
        pairs = []
        for instruction in instructions:
            prompt = instruction
            if mapping.get("user_role"):
                prompt = self.generate_instruction_from_history(
                    model,
                    [{"role": "system", "content": system}, {"role": "user", "content": instruction}],
                    mapping,
                )
            item = {
                "instruction": prompt,
                "max_length": request.max_length,
                "top_p": request.top_p,
                "temperature": request.temperature,
                **self.mapping_extra_generation_params.get(model, {}),
                **extract_params,
            }
            config = {key: value for key, value in item.items() if key != "instruction"}
            steps = self._request(model, {"kind": "text", "value": prompt}, config)
            pairs.append((item, self._do(steps)))
        return Responses(self._responses(model, self._results(model, pairs)))

    def raw_chat(
        self, model: str | None, request: LLMRequest | str, extract_params: Config = {}
    ) -> list[LLMResponse]:
        """The same as `chat`.

        Args:
            model, request, extract_params: as in `chat`.

        Example:
            >>> llm.raw_chat(None, "What is the capital of France?")[0].output
            'The capital of France is Paris.'
        """
        return self.chat(model, request, extract_params)

    # How a request becomes an answer.

    def _query(self, model: str, input_value: Sequence[Config]) -> answers.Results:
        """Sends requests in the form of Byzer-LLM's workers, see `byzerllm.wire`."""
        from byzerllm import wire

        return wire.query(self, self._model(model), input_value)

    def _results(self, model: str, pairs: list[tuple[Item, Item]]) -> answers.Results:
        items = [item for item, _ in pairs]
        self._tell_request(model, items, any(request["stream"] for _, request in pairs))
        results = self._do(self._before(model, items))
        if results is None:
            calls = []
            try:
                for _, request in pairs:
                    calls.append(self._endpoint.chat(request["request"], request["timeout"]))
                results = [
                    result
                    for call, item in zip(calls, items, strict=False)
                    for result in answers.results(call.result(), item)
                ]
            finally:
                for call in calls:
                    call.cancel()
        return self._do(self._after(model, results))


def _ability(calls: bool, writes: bool, answers_with_class: bool) -> str | None:
    """What the default system message has to explain."""
    if calls:
        return "FUNCTION_CALLING"
    if writes:
        return "FUNCTION_IMPL"
    return "RESPONSE_WITH_CLASS" if answers_with_class else None


def _in_either_order(delta_mode: bool | Config, llm_config: Config) -> tuple[bool, Config]:
    """Older programs have `llm_config` in the place of `delta_mode`."""
    return (False, delta_mode) if isinstance(delta_mode, Mapping) else (delta_mode, llm_config)


def default_chat_wrapper(
    llm: ByzerLLM, conversations: talk.Conversations | None = None, llm_config: Config = {}
) -> list[LLMResponse]:
    """Continues a conversation with the client's default model.

    Args:
        llm: the client.
        conversations: messages with roles, or one user message as a string.
        llm_config: generation keys as in `chat_oai`.

    Raises:
        What `chat_oai` raises; without `conversations` that is `InvalidRequestError`.

    Example:
        >>> default_chat_wrapper(llm, "What is the capital of France?")[0].output
        'The capital of France is Paris.'
    """
    return llm.chat_oai(conversations=conversations or [], llm_config=llm_config)
