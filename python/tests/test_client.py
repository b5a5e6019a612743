"""The client over a scripted place: what it sends, and what it makes of the answers."""

import asyncio
import copy
import logging
import pickle

import pytest

from byzerllm import notices
from byzerllm.errors import InternalError, InvalidRequestError, NotFoundError, TooLargeError, UnsupportedError
from byzerllm.utils.client import ByzerLLM, EventName, InferBackend, LLMHistoryItem, LLMRequest, Templates

HELLO = [{"role": "user", "content": "hello"}]


class Call:
    """An answer of three words."""

    def __init__(self, events):
        self.events = iter(events)
        self.cancelled = False

    def result(self):
        text, reason, usage = "", None, None
        for event in self.events:
            if event["event"] == "text":
                text += event["text"]
            elif event["event"] == "finished":
                reason = {key: event[key] for key in ("reason", "detail") if key in event}
            elif event["event"] == "usage":
                usage = event
        choice = {"text": text, "reasoning": "", "tool_calls": [], "logprobs": None, "finish_reason": reason}
        return {"request_id": "r1", "choices": [choice], "usage": usage, "timing": self.timing()}

    def timing(self):
        return {"first_token_ms": 10.0, "total_ms": 500.0}

    def cancel(self):
        self.cancelled = True

    def __iter__(self):
        return self.events

    def events_later(self):
        return [event for event in [next(self.events, None)] if event]


class Place:
    """Stands for the native endpoint."""

    embedded = True
    url = None

    def __init__(self, template=True):
        self.template = template
        self.requests = []
        self.calls = []
        self.specs = []
        self.models = {"chat"}
        self.pieces = ["Hel", "lo", "!"]
        self.reason = {"reason": "stop"}

    def model(self, name):
        if name not in self.models:
            raise NotFoundError(f"no model {name!r}")
        info = {
            "architectures": ["LlamaForCausalLM"],
            "engine": "byzerllm",
            "context_length": 64,
            "chat_template": self.template,
        }
        return {"info": info, "labels": {"backend": "ray/vllm"}, "created": 1}

    def deploy(self, spec):
        self.specs.append(spec)
        self.models.add(spec["name"])
        return {"spec": spec, "state": "ready", **self.model(spec["name"])}

    def undeploy(self, name, drain_seconds):
        if name not in self.models:
            raise NotFoundError(f"no model {name!r}")
        self.models.remove(name)

    def chat(self, request, timeout=None):
        self.requests.append(request)
        call = Call(
            [
                {"event": "started", "request_id": "r1"},
                *({"event": "text", "choice": 0, "text": piece} for piece in self.pieces),
                {"event": "finished", "choice": 0, **self.reason},
                {"event": "usage", "prompt_tokens": 4, "completion_tokens": 3},
            ]
        )
        self.calls.append(call)
        return call

    # In the place of what the mailbox delivers, see `llm`.

    chat_later = chat
    model_later = model

    def answer_later(self, request, timeout=None):
        return self.chat(request, timeout).result()

    def apply_template_later(self, *arguments):
        return self.apply_template(*arguments)

    def tokenize_later(self, *arguments):
        return self.tokenize(*arguments)

    def apply_template(self, model, messages, add_generation_prompt=True):
        rendered = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return rendered + ("<assistant>" if add_generation_prompt else "")

    def tokenize(self, model, text):
        return [ord(character) for character in text]


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def llm(place, monkeypatch):
    async def run(start, *arguments):
        await asyncio.sleep(0)
        return start(*arguments)

    monkeypatch.setattr("byzerllm.event_loop.run", run)
    client = ByzerLLM()
    client._connected = place
    return client.setup_default_model_name("chat")


@pytest.fixture(autouse=True)
def _forget_notices(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


# State.


def test_the_state_of_a_new_client():
    llm = ByzerLLM()
    assert llm.sys_conf == {
        "pythonMode": "ray",
        "maxConcurrency": 1,
        "num_gpus": 1,
        "masterMaxConcurrency": 1000,
        "workerMaxConcurrency": 1,
        "infer_backend": "transformers",
    }
    assert llm.default_role_mapping == {
        "user_role": "User:",
        "assistant_role": "Assistant:",
        "system_msg": "You are a helpful assistant. Think it over and answer the user question correctly.",
    }
    assert llm.default_model_name is None and llm.default_emb_model_name is None
    assert llm.verbose is False and llm.default_max_output_length == 1024
    assert llm.mapping_role_mapping == llm.mapping_extra_generation_params == llm.meta_cache == {}


def test_constructor_arguments(caplog):
    llm = ByzerLLM(None, verbose=True, force_skip_context_length_check="true", default_max_output_length="12")
    assert (llm.verbose, llm.force_skip_context_length_check, llm.default_max_output_length) == (
        True,
        True,
        12,
    )
    assert ByzerLLM(byzer_engine_url="http://x").byzer_engine_url == "http://x"
    with caplog.at_level(logging.WARNING, "byzerllm"):
        ByzerLLM(colour="red")
    assert "colour" in caplog.text


def test_the_chain_returns_the_client():
    llm = ByzerLLM()
    assert (
        llm.setup_gpus_per_worker(0.4)
        .setup_cpus_per_worker(0.001)
        .setup_num_workers(2)
        .setup_infer_backend(InferBackend.VLLM)
        .setup("resource.master", 0.01)
        .setup_load_balance_way("round_robin")
        .setup_max_model_length("chat", 10)
        .setup_max_input_length("chat", 5)
        .setup_extra_generation_params("chat", {"gen.seed": 1})
        .setup_extra_generation_params("chat", {"gen.seed": 2, "top_p": 1})
        is llm
    )
    assert llm.sys_conf["num_gpus"] == 0.4 and llm.sys_conf["num_cpus"] == 0.001
    assert llm.sys_conf["workerMaxConcurrency"] == 100 and llm.sys_conf["resource.master"] == 0.01
    assert llm.setup_infer_backend(InferBackend.transformers).sys_conf["workerMaxConcurrency"] == 1
    assert llm.mapping_extra_generation_params["chat"] == {"gen.seed": 2, "top_p": 1}
    assert (llm.get_max_model_length("chat"), llm.get_max_input_length("chat")) == (10, 5)
    assert llm.get_max_output_length("chat") == 1024
    assert llm.setup_reset() is None
    assert llm.sys_conf == ByzerLLM().sys_conf
    assert llm.context.conf is llm.sys_conf


def test_what_one_worker_makes_of_choices(llm, place, caplog):
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.setup_load_balance_way("lru").setup_pin_model_worker_mapping({"meta": 0, "tokenizer": "0"})
        llm.setup_num_workers(2).setup_worker_concurrency(3).deploy("/m", udf_name="a")
    assert not any("without effect" in message or "no effect" in message for message in caplog.messages)
    llm.setup_reset()
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.setup_pin_model_worker_mapping({"embedding": 1})
        llm.setup("resource.master", 0.5).setup_cpus_per_worker(2).setup_num_workers(4)
        llm.deploy("/m", udf_name="b")
    told = [message for message in caplog.messages if "effect" in message]
    assert len(told) == 2 and "setup_pin_model_worker_mapping" in told[0]
    assert all(word in told[1] for word in ("resource.master=0.5", "num_cpus=2"))
    assert [spec["limits"]["concurrency"] for spec in place.specs] == [6, 4]
    assert llm.pin_model_worker_mapping == {"embedding": 1}


@pytest.mark.parametrize(
    ("method", "arguments", "param"),
    [
        ("setup_load_balance_way", ("random",), "way"),
        ("setup_pin_model_worker_mapping", ({"chat": 0},), "mapping"),
        ("setup_pin_model_worker_mapping", ({"meta": -1},), "mapping"),
        ("setup_max_model_length", ("chat", 0), "max_model_length"),
        ("setup_max_input_length", ("chat", "many"), "max_input_length"),
        ("setup_max_output_length", ("chat", True), "max_output_length"),
        ("add_event_callback", ("before", print), "event_name"),
        ("add_event_callback", (EventName.BEFORE_CALL_MODEL, None), "callback"),
    ],
)
def test_settings_that_mean_nothing_are_refused(method, arguments, param):
    with pytest.raises(InvalidRequestError) as caught:
        getattr(ByzerLLM(), method)(*arguments)
    assert caught.value.param == param


FORMATS = [
    "function_calling_format_func",
    "response_class_format_func",
    "response_class_format_after_chat_func",
    "impl_func_format_func",
    "sys_function_calling_format_func",
    "sys_response_class_format_func",
    "sys_response_class_format_after_chat_func",
    "sys_impl_func_format_func",
]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_kept_for_later(name):
    llm = ByzerLLM()
    assert getattr(llm, f"setup_{name}")("chat", repr) is llm
    assert getattr(llm, f"mapping_{name}") == {"chat": repr}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sft", ("name", "/data", "/model", "/stage", "sft/llama2", 1, 1, True, "{}", {})),
        ("pretrain", ("name", "/data", "/model", "/stage", "sfft/llama2", 1, 1, True, "{}", {})),
        ("merge_lora", ("name", "/model", "/adapter", "/target")),
        ("raw_sft", ({}, {})),
        ("raw_pretrain", ({},)),
        ("raw_merge_lora", ({}, {})),
        ("raw_deepspeed_to_huggingface", ({},)),
    ],
)
def test_what_is_not_here_says_so(llm, place, name, arguments):
    llm.setup_default_emb_model_name("emb").setup_default_re_rank_model_name("rerank")
    assert (llm.default_emb_model_name, llm.default_rerank_model_name) == ("emb", "rerank")
    with pytest.raises(UnsupportedError, match=name) as caught:
        getattr(llm, name)(*arguments)
    assert caught.value.param == name and place.requests == []


def test_a_client_of_a_default_model(monkeypatch):
    monkeypatch.setattr(ByzerLLM, "_endpoint", Place())
    llm = ByzerLLM.from_default_model("chat")
    assert llm.default_model_name == "chat" and llm.mapping_auto_use_apply_chat_template == {"chat": True}


def test_a_client_can_be_copied_and_sent_to_another_process(llm, place):
    llm.setup_extra_generation_params("chat", {"gen.seed": 1}).setup_num_workers(2)
    for other in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert other._connected is None and llm._connected is place
        assert other.mapping_extra_generation_params == {"chat": {"gen.seed": 1}}
        assert other.setup_num_workers(3).sys_conf["maxConcurrency"] == 3
    assert llm.sys_conf["maxConcurrency"] == 2


def test_sub_clients():
    llm, helper = ByzerLLM(), ByzerLLM()
    assert llm.get_sub_client("code") is None
    assert llm.setup_sub_client("code", helper).get_sub_client("code") is helper
    assert llm.remove_sub_client("code").get_sub_client("code") is None


def test_a_url_that_is_none_is_ignored_with_a_notice(monkeypatch, caplog):
    import sys
    import types

    asked = []
    native = types.SimpleNamespace(connect=lambda url, token: asked.append(url) or Place())
    monkeypatch.setitem(sys.modules, "byzerllm._native", native)
    monkeypatch.setattr("byzerllm._native", native, raising=False)
    with caplog.at_level(logging.WARNING, "byzerllm"):
        assert ByzerLLM("local").is_model_exist("chat")
    assert asked == [None] and "'local'" in caplog.text
    assert ByzerLLM(url="http://127.0.0.1:1").is_model_exist("chat")
    assert asked[-1] == "http://127.0.0.1:1"


# Deployments.


def test_deploy_sends_a_typed_spec(llm, place, caplog):
    llm.setup_gpus_per_worker(4).setup_num_workers(1).setup_infer_backend(InferBackend.DeepSpeed)
    with caplog.at_level(logging.WARNING, "byzerllm"):
        meta = llm.deploy(
            "/models/x", "custom/llama2", "two", {"generation.temperature": "0.5", "quatization": "4", "n_threads": 4}
        )
    [spec] = place.specs
    assert spec == {
        "name": "two",
        "model": "/models/x",
        "compute": "standard",
        "quantization": "4",
        "defaults": {"temperature": 0.5},
        "limits": {"concurrency": 100, "queue_limit": 1000},
        "labels": {
            "backend": "ray/deepspeed",
            "pretrained_model_type": "custom/llama2",
            "sys_conf": {"num_gpus": 4, "maxConcurrency": 1, "infer_backend": "ray/deepspeed"},
            "without_effect": ["n_threads=4", "num_gpus=4", "infer_backend='ray/deepspeed'"],
        },
    }
    assert meta["model_deploy_type"] == "proprietary" and meta["architectures"] == ["LlamaForCausalLM"]
    own_engine = [record.message for record in caplog.records if "own engine" in record.message]
    assert len(own_engine) == 1
    assert all(word in own_engine[0] for word in ("num_gpus=4", "ray/deepspeed", "n_threads"))
    assert sum("byzerllm serve" in record.message for record in caplog.records) == 1


def test_the_way_to_keep_a_deployment_is_said_once(llm, place, caplog):
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.deploy("/m", "custom/auto", "a", {})
        llm.deploy("/m", "custom/auto", "b", {})
    assert sum("byzerllm serve" in record.message for record in caplog.records) == 1
    assert not any("own engine" in record.message for record in caplog.records)


def test_a_server_keeps_deployments_and_nothing_is_said(llm, place, caplog):
    place.embedded = False
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.deploy("/m", "custom/auto", "a", {})
    assert caplog.records == []


def test_a_family_that_the_file_is_not_is_told(llm, place, caplog):
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.deploy("/m", "custom/qwen", "a", {})
    assert "LlamaForCausalLM" in caplog.text


def test_concurrency_is_sent_only_when_chosen(llm, place):
    llm.setup_infer_backend(InferBackend.VLLM).deploy("/m", "custom/auto", "a", {})
    llm.setup_num_workers("2").setup_worker_concurrency(3).deploy("/m", "custom/auto", "b", {})
    assert [spec["limits"] for spec in place.specs] == [{}, {"concurrency": 6, "queue_limit": 1000}]


def test_relative_paths_become_absolute(llm, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    llm.deploy("m", udf_name="a")
    assert place.specs[0]["model"] == str(tmp_path / "m")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model_path": "/m"}, InvalidRequestError, "udf_name"),
        ({"udf_name": "a"}, InvalidRequestError, "model_path"),
        ({"pretrained_model_type": "saas/opnai", "udf_name": "a"}, NotFoundError, "saas/openai"),
        (
            {"model_path": "/m", "udf_name": "a", "infer_params": {"temprature": 1}},
            InvalidRequestError,
            "temperature",
        ),
    ],
)
def test_deployments_that_cannot_be(llm, place, arguments, error, words):
    with pytest.raises(error, match=words):
        llm.deploy(**arguments)
    assert place.specs == []


def test_undeploy_never_minds_a_missing_model(llm):
    assert llm.is_model_exist("chat")
    llm.undeploy("chat")
    assert not llm.is_model_exist("chat")
    llm.undeploy("chat", force=True)


def test_meta(llm):
    assert (
        llm.get_meta()
        == llm.get_meta("chat")
        == llm.get_meta(model="chat")
        == {
            "model_deploy_type": "proprietary",
            "backend": "ray/vllm",
            "support_stream": True,
            "support_chat_template": True,
            "max_model_len": 64,
            "architectures": ["LlamaForCausalLM"],
            "engine": "byzerllm",
        }
    )
    with pytest.raises(ValueError):
        llm.get_meta("nobody")
    with pytest.raises(InvalidRequestError, match="model name is required"):
        ByzerLLM().get_meta()


# Chats.


def test_a_chat(llm, place):
    [response] = llm.chat_oai(conversations=HELLO)
    assert response.output == "Hello!"
    assert response.metadata == {
        "request_id": "r1",
        "input_tokens_count": 4,
        "generated_tokens_count": 3,
        "time_cost": 500.0,
        "first_token_time": 10.0,
        "speed": 6.0,
        "prob": -1.0,
        "finish_reason": "stop",
    }
    assert response.input == {"instruction": "hello", "history": []}
    assert place.requests == [
        {
            "model": "chat",
            "input": {"kind": "messages", "value": [{"role": "user", "content": "hello", "extra": {}}]},
            "n": 1,
            "sampling": {},
            "front_end": "legacy",
        }
    ]


def test_a_model_without_template_gets_lines(llm, place):
    place.template = False
    [response] = llm.chat_oai(HELLO)
    assert place.requests[0]["input"] == {"kind": "text", "value": "User:hello\nAssistant:"}
    assert response.input["instruction"] == "User:hello\nAssistant:"


def test_auto_on_a_model_without_template_gets_lines_and_a_notice(llm, place, caplog):
    place.template = False
    with caplog.at_level(logging.WARNING, "byzerllm"):
        assert llm.setup_template("chat", "auto") is llm
    assert "no chat template" in caplog.text
    llm.chat_oai(HELLO)
    assert place.requests[0]["input"]["kind"] == "text"


def test_auto_may_come_before_the_deployment(llm, place):
    llm.setup_template("later", "auto")
    place.models.add("later")
    llm.chat_oai(HELLO, model="later")
    assert place.requests[0]["input"]["kind"] == "messages"


def test_a_template_wins_over_the_models_own(llm, place, caplog):
    llm.setup_template("chat", Templates.qwen())
    place.pieces = ["Hi", "<|im_", "end|>", "junk"]
    with caplog.at_level(logging.WARNING, "byzerllm"):
        [response] = llm.chat_oai(HELLO)
    assert response.output == "Hi"
    request = place.requests[0]
    assert request["input"] == {
        "kind": "text",
        "value": "<|im_start|>user\nhello\n<|im_end|>\n<|im_start|>assistant\n",
    }
    assert request["sampling"] == {"stop_token_ids": [151643, 151645], "repetition_penalty": 1.1}
    assert caplog.text == ""
    llm.setup_template("chat", "auto").chat_oai(HELLO)
    assert place.requests[1]["input"]["kind"] == "messages"
    llm.chat_oai(HELLO, role_mapping={"user_role": "Q:", "assistant_role": "A:"})
    assert place.requests[2]["input"]["value"] == "Q:hello\nA:"


def test_conversations_in_every_form(llm, place):
    history = [
        {"role": "system", "content": "S", "metadata": {"a": 1}},
        LLMHistoryItem("user", "U"),
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "V", "name": "Ann"},
    ]
    before = copy.deepcopy(history)
    llm.setup_base_system_messages("chat", "BASE")
    [response] = llm.chat_oai(history, enable_default_sys_message=True)
    assert history == before
    assert [message["content"] for message in place.requests[0]["input"]["value"]] == [
        "BASE\nS",
        "U",
        "A",
        "V",
    ]
    assert place.requests[0]["input"]["value"][3]["extra"] == {"name": "Ann"}
    assert response.input["instruction"] == "V" and len(response.input["history"]) == 3
    llm.chat_oai("just text")
    assert place.requests[1]["input"]["value"] == [{"role": "user", "content": "just text", "extra": {}}]
    llm.chat_oai(HELLO, enable_default_sys_message=True)
    assert [message["role"] for message in place.requests[2]["input"]["value"]] == ["system", "user"]


@pytest.mark.parametrize(
    "conversation",
    [
        [],
        {"role": "user"},
        ["hello"],
        [{"role": "user"}],
        [{"role": 1, "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "robot", "content": "x"}],
    ],
)
def test_conversations_that_are_none(llm, place, conversation):
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat_oai(conversation)
    assert caught.value.param == "conversations" and place.requests == []


def test_parameters_reach_the_request(llm, place):
    llm.setup_extra_generation_params("chat", {"gen.seed": 1, "temperature": 1})
    llm.setup_max_output_length("chat", 33)
    config = {"temperature": "0", "generation.stop": ["x"]}
    [response] = llm.chat_oai(HELLO, llm_config=config)
    assert place.requests[0]["sampling"] == {"seed": 1, "temperature": 0.0, "stop": ["x"], "max_tokens": 33}
    assert response.input["generation.stop"] == ["x"]
    assert config == {"temperature": "0", "generation.stop": ["x"]}
    llm.chat_oai(HELLO, llm_config={"max_length": 5})
    assert place.requests[1]["sampling"]["max_tokens"] == 5
    with pytest.raises(InvalidRequestError, match=r"'gen\.temperature'"):
        llm.chat_oai(HELLO, llm_config={"gen.temprature": 1})


def test_a_length_given_to_the_client_applies_to_all_models(place):
    llm = ByzerLLM(default_max_output_length=17)
    llm._connected = place
    llm.chat_oai(HELLO, model="chat")
    assert place.requests[0]["sampling"] == {"max_tokens": 17}


def test_the_clients_own_limits(llm, place):
    llm.setup_max_input_length("chat", 10)
    with pytest.raises(TooLargeError, match=r"input length \d+ is larger than max_input_length 10"):
        llm.chat_oai(HELLO)
    llm.setup_max_input_length("chat", 100).setup_max_model_length("chat", 50)
    llm.chat_oai(HELLO)
    used = len("<user>hello<assistant>")
    assert place.requests[0]["sampling"]["max_tokens"] == 50 - used
    with pytest.raises(TooLargeError):
        llm.setup_max_model_length("chat", used).chat_oai(HELLO)
    llm.force_skip_context_length_check = True
    llm.chat_oai(HELLO)


def test_arguments_that_contradict_or_come_later(llm):
    with pytest.raises(InvalidRequestError, match="setup_default_model_name"):
        ByzerLLM().chat_oai(HELLO)
    with pytest.raises(InvalidRequestError, match="response_class should not be set"):
        llm.chat_oai(HELLO, tools=[print], response_class=dict)
    with pytest.raises(InvalidRequestError, match="response_class should be set"):
        llm.chat_oai(HELLO, impl_func=print)
    with pytest.raises(UnsupportedError, match="stream_chat_oai"):
        llm.chat_oai(HELLO, llm_config={"generation.stream": True})


def test_only_the_prompt(llm, place):
    [response] = llm.chat_oai(HELLO, only_return_prompt=True, llm_config={"top_p": 1})
    assert (response.output, response.input) == ("", "hello")
    assert response.metadata == {"instruction": "hello", "history": [], "top_p": 1}
    assert place.requests == []


def test_a_failed_choice_raises(llm, place):
    place.reason = {"reason": "error", "detail": {"kind": "internal", "message": "broken"}}
    with pytest.raises(InternalError, match="broken"):
        llm.chat_oai(HELLO)
    with pytest.raises(InternalError, match="broken"):
        list(llm.stream_chat_oai(HELLO))


def test_verbose_prints_requests(llm, capsys):
    llm.verbose = True
    llm.chat_oai(HELLO)
    assert capsys.readouterr().out.startswith("Send to model[chat]:")


def test_get_meta_may_be_replaced(llm, place):
    llm.get_meta = lambda model, llm_config={}: {"support_chat_template": False}
    llm.chat_oai(HELLO)
    assert place.requests[0]["input"]["kind"] == "text"


def test_the_way_to_the_server_is_taken_once(llm, place, monkeypatch):
    asked = []
    model, chat = place.model, place.chat
    monkeypatch.setattr(place, "model", lambda name: (asked.append(name), model(name))[1])

    def strict(request, timeout=None):
        if request["input"]["kind"] == "messages" and not place.template:
            raise UnsupportedError("the model has no chat template")
        return chat(request, timeout)

    monkeypatch.setattr(place, "chat", strict)
    for _ in range(3):
        llm.chat_oai(HELLO)
    assert asked == ["chat"]
    # Another model took the name.
    place.template = False
    llm.chat_oai(HELLO)
    llm.chat_oai(HELLO)
    assert [request["input"]["kind"] for request in place.requests[3:]] == ["text", "text"]
    place.template = True
    llm.chat_oai(HELLO)
    assert place.requests[-1]["input"]["kind"] == "messages"
    with pytest.raises(UnsupportedError, match="broken"):
        monkeypatch.setattr(place, "chat", lambda *_: (_ for _ in ()).throw(UnsupportedError("broken")))
        llm.chat_oai(HELLO)


def test_event_callbacks(llm, place):
    seen = []

    def before(client, model, items):
        seen.append((client, model, items))
        return True, None

    def after(client, model, results):
        results[0]["predict"] += "?"
        return False, results

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, before)
    llm.add_event_callback(EventName.AFTER_CALL_MODEL, after)
    assert llm.chat_oai(HELLO)[0].output == "Hello!?"
    assert seen == [(llm, "chat", [{"instruction": "hello", "history": []}])]
    instead = [{"predict": "cached", "metadata": {"hit": True}, "input": {}}]
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *_: (False, instead))
    [response] = llm.chat_oai(HELLO)
    assert (response.output, response.metadata) == ("cached?", {"hit": True})
    assert len(place.requests) == 1


def test_a_default_that_the_request_overrides(llm, place):
    llm.setup_max_output_length("chat", "9")
    llm.chat_oai(HELLO)
    llm.chat_oai(HELLO, llm_config={"max_tokens": 4})
    assert [request["sampling"]["max_tokens"] for request in place.requests] == [9, 4]


def test_the_rest_of_sampling_reaches_the_request(llm, place):
    config = {
        "generation.repetition_penalty": "1.2",
        "gen.presence_penalty": 0.5,
        "frequency_penalty": -1,
        "logit_bias": {7: -100, "8": "5"},
        "min_tokens": 2,
        "ignore_eos": "true",
        "best_of": 3,
        "n": 2,
    }
    llm.chat_oai(HELLO, llm_config=config)
    [request] = place.requests
    assert (request["n"], request["best_of"]) == (2, 3)
    assert request["sampling"] == {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": -1.0,
        "logit_bias": {"7": -100.0, "8": 5.0},
        "min_tokens": 2,
        "ignore_end": True,
    }


def test_what_is_known_about_the_default_model(llm, place):
    known = llm.metadata
    assert (known.context_window, known.model_name, known.is_chat_model) == (64, "chat", True)
    assert not llm.require_template("chat")
    place.template = False
    assert llm.require_template("chat")


def test_event_callbacks_around_streams(llm, place):
    seen = []
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda client, model, items: seen.append(items))
    llm.add_event_callback(
        EventName.AFTER_CALL_MODEL, lambda client, model, results: (seen.append(results), (True, None))[1]
    )
    assert len(list(llm.stream_chat_oai(HELLO))) == 3
    item, results = seen
    assert item == [{"instruction": "hello", "history": []}]
    assert results[0]["predict"] == "Hello!" and results[0]["input"] == item[0]
    whole = llm.chat_oai(HELLO)[0].metadata
    assert {**results[0]["metadata"], "prob": -1.0} == whole
    instead = [{"predict": "cached", "metadata": {"input_tokens_count": 7}}]
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *_: (False, instead))
    [only] = llm.stream_chat_oai(HELLO)
    assert only.text == "cached" and only.meta.input_tokens_count == 7
    assert len(place.requests) == 2


@pytest.mark.parametrize("result", ["text", (False, "text"), (False, [{"text": "x"}]), (1, 2, 3)])
def test_event_callbacks_must_keep_the_form(llm, place, result):
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *_: result)
    with pytest.raises(InvalidRequestError, match="event callback"):
        llm.chat_oai(HELLO)
    with pytest.raises(InvalidRequestError, match="event callback"):
        asyncio.run(llm.async_chat_oai(HELLO))
    assert place.requests == []


def test_coroutines_as_event_callbacks(llm, place):
    async def after(client, model, results):
        await asyncio.sleep(0)
        results[0]["predict"] += "?"
        return False, results

    llm.add_event_callback(EventName.AFTER_CALL_MODEL, after)
    assert asyncio.run(llm.async_chat_oai(HELLO))[0].output == "Hello!?"
    with pytest.raises(InvalidRequestError, match="async"):
        llm.chat_oai(HELLO)


def test_the_older_chat(llm, place):
    [response] = llm.chat("chat", LLMRequest(instruction="hi", max_length=7))
    system = llm.default_role_mapping["system_msg"]
    prompt = f"{system}\nUser:hi\nAssistant:"
    assert place.requests[0]["input"] == {"kind": "text", "value": prompt}
    assert place.requests[0]["sampling"] == {"max_tokens": 7, "top_p": 0.95, "temperature": 0.1}
    assert response.input["instruction"] == prompt
    answers = llm.raw_chat(None, LLMRequest(instruction=["a", "b"]), {"temperature": 0})
    assert [answer.output for answer in answers] == ["Hello!", "Hello!"]
    assert [request["input"]["value"][-12:] for request in place.requests[1:]] == [
        "a\nAssistant:",
        "b\nAssistant:",
    ]
    llm.setup_template("chat", Templates.empty()).chat("chat", "bare")
    assert place.requests[3]["input"]["value"] == "bare"
    with pytest.raises(InvalidRequestError, match="model name is required"):
        ByzerLLM().chat(None, "x")


def test_tokens_and_templates(llm):
    assert llm.tokenize(None, "ab")[0].output == [[97, 98]]
    assert llm.apply_chat_template("chat", '[{"role": "user", "content": "x"}]') == "<user>x<assistant>"
    assert llm.apply_chat_template("chat", HELLO) == "<user>hello<assistant>"
    with pytest.raises(InvalidRequestError):
        llm.apply_chat_template("chat", "not json")
    assert llm.generate_instruction_from_history("chat", HELLO) == "User:hello\nAssistant:"
    llm.setup_template("chat", "auto")
    assert llm.generate_instruction_from_history("chat", HELLO) == "<user>hello<assistant>"


# Event loops.


def test_the_async_chat_is_the_same_chat(llm, place):
    llm.setup_extra_generation_params("chat", {"gen.seed": 1}).setup_max_model_length("chat", 60)
    llm.setup_base_system_messages("chat", "BASE")
    arguments = {"llm_config": {"temperature": "0"}, "enable_default_sys_message": True}
    [expected] = llm.chat_oai(HELLO, **arguments)
    [response] = asyncio.run(llm.async_chat_oai(HELLO, **arguments))
    assert response == expected
    assert place.requests[0] == place.requests[1]
    [prompt] = asyncio.run(llm.async_chat_oai(HELLO, only_return_prompt=True))
    assert prompt.input == "hello" and len(place.requests) == 2


def test_the_async_chat_refuses_the_same(llm):
    for error, arguments in (
        (InvalidRequestError, {"tools": [print], "response_class": dict}),
        (InvalidRequestError, {"impl_func": print}),
        (InvalidRequestError, {"tools": [3]}),
        (InvalidRequestError, {"response_class": 3}),
        (UnsupportedError, {"llm_config": {"stream": True}}),
        (InvalidRequestError, {"llm_config": {"temprature": 0}}),
        (NotFoundError, {"model": "nobody"}),
    ):
        with pytest.raises(error):
            asyncio.run(llm.async_chat_oai(HELLO, **arguments))
    with pytest.raises(InvalidRequestError, match="setup_default_model_name"):
        asyncio.run(ByzerLLM().async_chat_oai(HELLO))


# Streams.


def test_a_stream_is_cumulative(llm, place):
    items = list(llm.stream_chat_oai(HELLO))
    assert [text for text, _ in items] == ["Hel", "Hello", "Hello!"]
    assert [line + "\n" for line in items] == ["Hel\n", "Hello\n", "Hello!\n"]
    meta = items[-1].meta
    assert (meta.input_tokens_count, meta.generated_tokens_count, meta.finish_reason) == (4, 3, "stop")
    assert meta.first_token_time == 10.0 and meta.extra_info["request_id"] == "r1"
    assert place.calls[0].cancelled


def test_deltas(llm, place):
    assert "".join(text for text, _ in llm.stream_chat_oai(HELLO, delta_mode=True)) == "Hello!"
    # The older order of arguments has llm_config in this place.
    assert len(list(llm.stream_chat_oai(HELLO, "chat", None, {"gen.seed": 3}))) == 3
    assert place.requests[1]["sampling"] == {"seed": 3}


def test_equal_snapshots_are_skipped(llm, place):
    llm.setup_template("chat", Templates.qwen())
    place.pieces = ["Hi", "<|im_end|>", "junk"]
    assert [text for text, _ in llm.stream_chat_oai(HELLO)] == ["Hi"]


def test_closing_the_generator_cancels(llm, place):
    stream = llm.stream_chat_oai(HELLO, llm_config={"gen.stream": True, "gen.incremental_output": False})
    next(stream)
    assert not place.calls[0].cancelled
    stream.close()
    assert place.calls[0].cancelled


def test_a_stream_checks_its_arguments_at_the_first_step(llm):
    stream = llm.stream_chat_oai(HELLO, llm_config={"gen.n": 2})
    with pytest.raises(UnsupportedError):
        next(stream)


def test_a_stream_for_an_event_loop(llm, place):
    async def read(limit):
        texts = []
        stream = llm.async_stream_chat_oai(HELLO, delta_mode=True)
        async for text, _ in stream:
            texts.append(text)
            if len(texts) == limit:
                break
        await stream.aclose()
        return texts

    assert asyncio.run(read(99)) == ["Hel", "lo", "!"]
    assert asyncio.run(read(1)) == ["Hel"]
    assert place.calls[1].cancelled
