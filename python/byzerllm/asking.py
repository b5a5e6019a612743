"""How a conversation becomes a request, and a request an answer."""

from collections.abc import Mapping
from typing import Any

from byzerllm import answers, parameters
from byzerllm import conversation as talk
from byzerllm.connection import Connection
from byzerllm.errors import InvalidRequestError, TooLargeError, UnsupportedError
from byzerllm.notices import say_once
from byzerllm.stepping import Ask, Steps
from byzerllm.templates import RoleMapping, render
from byzerllm.types import EventName, LLMResponse

Config = Mapping[str, Any]
Item = dict[str, Any]


class Asking(Connection):
    """The part of `ByzerLLM` that puts conversations to models."""

    # What is known of a model.

    def get_meta(self, model: str | None = None, llm_config: Config = {}) -> dict[str, Any]:
        """What is known about a deployment. Always asked afresh; `meta_cache` holds the last answer.

        Args:
            model: the name of the deployment; the default model unless given.
            llm_config: not read.

        Returns `max_model_len` in tokens (-1 where the model does not say), `support_chat_template`,
        `architectures`, `backend` and more.

        Raises:
            NotFoundError: there is no such deployment.
            UnavailableError: it is loading or failed, or the server is out of reach.

        Example:
            >>> llm.get_meta("chat")["max_model_len"]
            8192
        """
        model = self._model(model)
        return self._meta(model, self._endpoint.model(model))

    def _meta(self, model: str, found: dict[str, Any]) -> dict[str, Any]:
        info, labels = found["info"], found.get("labels") or {}
        engine = info.get("engine", "byzerllm")
        vendor = engine.startswith("saas/")
        meta = {
            "model_deploy_type": "saas" if vendor else "proprietary",
            "backend": "saas" if vendor else labels.get("backend", "byzerllm"),
            "support_stream": True,
            "support_chat_template": bool(info.get("chat_template")),
            "max_model_len": info.get("context_length") or -1,
            "architectures": info.get("architectures", []),
            "engine": engine,
        }
        details = info.get("details") or {}
        if task := details.get("task"):
            meta["task"] = task
            meta["embedding_mode"] = task == "embed"
            meta["support_stream"] = task not in ("embed", "rerank")
        if vendor:
            meta["model_name"] = details.get("model", "")
            meta["embedding_mode"] = "embeddings" in (details.get("tasks") or ())
        self.meta_cache[model] = meta
        return dict(meta)

    def _meta_is_replaced(self) -> bool:
        """Whether somebody put their own `get_meta` in its place."""
        return "get_meta" in self.__dict__ or type(self).get_meta is not Asking.get_meta

    def _meta_steps(self, model: str) -> Steps[dict[str, Any]]:
        if self._meta_is_replaced():
            return self.get_meta(model)
        return self._meta(model, (yield "model", model))

    def _forget(self, model: str) -> None:
        """Drops what was known of a deployment."""
        self.meta_cache.pop(model, None)
        self._lacks.pop(model, None)
        self._templated.discard(model)

    # How a chat becomes a request.

    def _model(self, model: str | None, message: str = "model name is required") -> str:
        name = model or self.default_model_name
        if not name:
            raise InvalidRequestError(message, param="model")
        return name

    def _with_abilities(self, model: str, history: list[Item], ability: str | None) -> list[Item]:
        """The conversation with a system message that explains what this call asks for."""
        base = self.mapping_base_system_message.get(model)
        if base is None and ability is not None:
            from byzerllm import formats

            base = formats.base_ability_format(base_abilities=[formats.BaseAbility[ability]])
        if not base:
            return history
        if history[0]["role"] == "system":
            return [{**history[0], "content": f"{base}\n{history[0]['content']}"}, *history[1:]]
        return [{"role": "system", "content": base}, *history]

    def _lacking(self, model: str) -> set[str]:
        """What the place of a model has refused to do: `tools`, `format`."""
        return self._lacks.setdefault(model, set())

    def _is_vendor(self, model: str) -> bool:
        """Whether a model is known to be a vendor's."""
        return bool(self.meta_cache.get(model, {}).get("model_deploy_type") == "saas")

    def _takes_messages(self, ask: Ask) -> Steps[bool]:
        """Whether a model gets messages, not a prompt that was rendered here."""
        if ask.role_mapping or self.mapping_role_mapping.get(ask.model):
            return False
        return (yield from self._has_template(ask.model))

    def _has_template(self, model: str, remembered: bool = True) -> Steps[bool]:
        """Whether a model renders messages itself. That it does is remembered: asking costs a way to the server."""
        if remembered and model in self._templated:
            return True
        meta = yield from self._meta_steps(model)
        found = bool(
            meta.get("support_chat_template")
            or meta.get("message_format")
            or meta.get("model_deploy_type") == "saas"
        )
        if found and not self._meta_is_replaced():
            self._templated.add(model)
        else:
            self._templated.discard(model)
        return found

    def _ask(self, ask: Ask, history: list[Item], extra: Config = {}) -> Steps[list[LLMResponse]]:
        """Puts a conversation to a model. `extra` are further fields of the request, like `tools`."""
        remembered = ask.model in self._templated
        try:
            return (yield from self._ask_once(ask, history, extra))
        except UnsupportedError:
            # Another model may have taken its name, one without a template.
            if not remembered or (yield from self._has_template(ask.model, remembered=False)):
                raise
        return (yield from self._ask_once(ask, history, extra))

    def _ask_once(self, ask: Ask, history: list[Item], extra: Config) -> Steps[list[LLMResponse]]:
        model = ask.model
        item, request = yield from self._chat_request(
            model, history, ask.role_mapping, ask.llm_config, ask.extra_request_params
        )
        if extra:
            item.update(extra)
            request["request"].update(extra)
        if ask.only_return_prompt:
            return [LLMResponse(output="", input=item["instruction"], metadata=item)]
        self._tell_request(model, [item], request["stream"])
        results = yield from self._before(model, [item])
        if results is None:
            answer = yield "answer", request["request"], request["timeout"]
            results = answers.results(answer, item)
        return self._responses(model, (yield from self._after(model, results)))

    def _chat_request(
        self,
        model: str,
        history: list[Item],
        role_mapping: RoleMapping | None,
        llm_config: Config,
        extra_request_params: Config,
        remembered: bool = True,
    ) -> Steps[tuple[Item, Item]]:
        """What is told about the request, and the request itself."""
        config = {**self.mapping_extra_generation_params.get(model, {}), **llm_config}
        if extra_request_params:
            config["extra_request_params"] = dict(extra_request_params)
        mapping = role_mapping or self.mapping_role_mapping.get(model)
        if mapping is None:
            if (yield from self._has_template(model, remembered)):
                item = {"instruction": history[-1]["content"], "history": history[:-1], **config}
                plain = self.skip_nontext_check or not self._is_vendor(model)
                content: Item = {"kind": "messages", "value": talk.for_engine(history, plain)}
                return item, (yield from self._request(model, content, config))
            mapping = self.default_role_mapping
        prompt = render(history, mapping)
        item = {"instruction": prompt, "history": [], **config}
        return item, (yield from self._request(model, {"kind": "text", "value": prompt}, config))

    def _stream_request(
        self,
        model: str,
        conversations: talk.Conversations,
        role_mapping: RoleMapping | None,
        llm_config: Config,
        extra_request_params: Config,
    ) -> Steps[tuple[Item, Item]]:
        history = talk.messages(conversations)
        item, request = yield from self._chat_request(
            model, history, role_mapping, llm_config, extra_request_params, remembered=False
        )
        if request["request"]["n"] != 1:
            raise UnsupportedError(
                "stream_chat_oai streams one answer; use chat_oai for n above 1", param="n"
            )
        self._tell_request(model, [item], False)
        return item, request

    def _request(self, model: str, content: Item, config: Config) -> Steps[Item]:
        generation = parameters.generation(config, self.ignore_unknown, self._is_vendor(model))
        sampling = generation.sampling
        for key in generation.ignored:
            if self.strict:
                raise UnsupportedError(f"strict: {key} has no effect on byzerllm's own engine", param=key)
            say_once(f"{model}: {key} has no effect on byzerllm's own engine")
        if "max_tokens" not in sampling and (
            model in self.mapping_max_output_length or self._output_length_was_set
        ):
            sampling["max_tokens"] = self.get_max_output_length(model)
        yield from self._check_lengths(model, content, sampling)
        request: Item = {
            "model": model,
            "input": content,
            "n": generation.n,
            "sampling": sampling,
            "front_end": "legacy",
        }
        if generation.best_of is not None:
            request["best_of"] = generation.best_of
        if generation.extra:
            request["extra"] = generation.extra
        if generation.takeover is not None:
            request["takeover"] = generation.takeover
        if generation.no_cache:
            request["no_cache"] = True
        return {
            "request": request,
            "timeout": generation.timeout,
            "stream": generation.stream,
        }

    def _check_lengths(self, model: str, content: Item, sampling: Item) -> Steps[None]:
        """Applies the client's own limits, when it has any; the engine applies the model's."""
        most_input = self.mapping_max_input_length.get(model)
        most = self.mapping_max_model_length.get(model)
        if self.force_skip_context_length_check or (most_input is None and most is None):
            return
        text = content["value"]
        if content["kind"] == "messages":
            text = yield "apply_template", model, text, True
        length = len((yield "tokenize", model, text))
        if most_input is not None and length > most_input:
            raise TooLargeError(f"input length {length} is larger than max_input_length {most_input}")
        if most is not None:
            if length >= most:
                raise TooLargeError(
                    f"input length {length} leaves no room for an answer in max_model_length {most}"
                )
            wanted = sampling.get("max_tokens", self.get_max_output_length(model))
            sampling["max_tokens"] = min(wanted, most - length)

    # How a request becomes an answer.

    def _tell_request(self, model: str, items: list[Item], stream: bool) -> None:
        if stream:
            raise UnsupportedError("use stream_chat_oai for a streamed answer", param="stream")
        if self.verbose:
            print(f"Send to model[{model}]:{items}", flush=True)

    def _before(self, model: str, items: list[Item]) -> Steps[answers.Results | None]:
        """The results that an event callback gives instead of the model, if one does."""
        given = yield from self._trigger(EventName.BEFORE_CALL_MODEL, model, items)
        return None if given is None else answers.checked(given)

    def _after(self, model: str, results: answers.Results) -> Steps[answers.Results]:
        """The results, or what an event callback makes of them."""
        replaced = yield from self._trigger(EventName.AFTER_CALL_MODEL, model, results)
        return results if replaced is None else answers.checked(replaced)

    def _responses(self, model: str, results: answers.Results) -> list[LLMResponse]:
        clean = self.mapping_clean_func.get(model, unchanged)
        return [
            LLMResponse(
                output=clean(result["predict"]) if isinstance(result["predict"], str) else result["predict"],
                input=result.get("input", {}),
                metadata=result.get("metadata", {}),
            )
            for result in results
        ]


def unchanged(text: str) -> str:
    """The text itself, where no template cleans answers."""
    return text
