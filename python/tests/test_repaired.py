"""What was wrong or undecided in Byzer-LLM and is decided here, as far as no other file tests it."""

import copy
import json
import logging
import os

import pytest
from conftest import CHECKPOINTS, edited, run_program

from byzerllm.errors import ByzerLLMError, InvalidRequestError
from byzerllm.utils import base_ability_format
from byzerllm.utils.client import ByzerLLM, LLMRequest, Templates

HELLO = [{"role": "user", "content": "hello", "metadata": {"kept": [1]}}]
SHORT = {"temperature": 0, "max_length": 4}


@pytest.fixture
def chat(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    return llm.setup_default_model_name("chat")


def test_the_callers_messages_and_settings_stay_as_they_are(chat):
    conversation, config, extra = copy.deepcopy(HELLO), dict(SHORT), {"generation.top_k": 3}
    chat.setup_base_system_messages("chat", "be kind").setup_extra_generation_params("chat", extra)
    for use in (
        lambda: chat.chat_oai(conversation, enable_default_sys_message=True, llm_config=config),
        lambda: list(chat.stream_chat_oai(conversation, llm_config=config)),
        lambda: chat.chat("chat", "hi", config),
    ):
        use()
        assert (conversation, config, extra) == (HELLO, SHORT, {"generation.top_k": 3})
        assert chat.mapping_extra_generation_params == {"chat": extra}
    config["max_length"] = 1
    assert chat.mapping_extra_generation_params == {"chat": extra}


def test_one_client_knows_nothing_of_another(chat):
    other = ByzerLLM()
    chat.setup_extra_generation_params("chat", {"top_k": 1}).setup("x", 1).setup_max_output_length("chat", 3)
    assert other.mapping_extra_generation_params == other.mapping_max_output_length == {}
    assert "x" not in other.sys_conf
    assert Templates.qwen().generation_config is not Templates.qwen().generation_config
    assert base_ability_format() == base_ability_format(), "no call leaves something for the next"


def test_a_length_means_new_tokens_for_every_backend(llm, endless):
    for backend in ("transformers", "ray/vllm"):
        llm.setup_infer_backend(backend).deploy(endless, udf_name="long")
        for key in ("max_length", "max_tokens", "gen.max_new_tokens"):
            [answer] = llm.chat_oai("a rather long question " * 5, model="long", llm_config={key: 7})
            assert answer.metadata["generated_tokens_count"] == 7
    default = llm.chat_oai("x", model="long", llm_config={"temperature": 0})[0]
    assert default.metadata["generated_tokens_count"] == 1024
    mine = ByzerLLM(default_max_output_length="9").chat_oai("x", model="long", llm_config={"temperature": 0})[
        0
    ]
    assert mine.metadata["generated_tokens_count"] == 9


def test_the_length_of_a_prompt_is_that_of_the_model_asked(llm, checkpoint, endless):
    """Not of the default model, and a failure to count is no permission."""
    llm.deploy(checkpoint, udf_name="chat")
    llm.setup_default_model_name("nobody").setup_max_input_length("chat", 3)
    with pytest.raises(ByzerLLMError, match="3"):
        llm.chat_oai("a question that has many more tokens than three", model="chat", llm_config=SHORT)


def test_times_are_milliseconds_and_speed_is_tokens_per_second(chat):
    metadata = chat.chat_oai(HELLO, llm_config={"temperature": 0, "max_length": 32})[0].metadata
    assert 0 < metadata["first_token_time"] <= metadata["time_cost"] < 600_000
    tokens, seconds = metadata["generated_tokens_count"], metadata["time_cost"] / 1000
    assert metadata["speed"] == pytest.approx(tokens / seconds, rel=1e-6)


def test_meta_follows_a_deployment_of_somebody_else(chat, endless):
    assert chat.get_meta()["max_model_len"] == 256
    ByzerLLM().deploy(endless, udf_name="chat")
    assert chat.get_meta()["max_model_len"] == 60_000


def test_a_failed_deployment_leaves_the_name_free(llm, tmp_path, checkpoint):
    broken = edited(CHECKPOINTS / "qwen2-bf16", tmp_path / "broken", config={"hidden_size": 63})
    with pytest.raises(ByzerLLMError):
        llm.deploy(broken, udf_name="chat")
    assert llm.deploy(checkpoint, udf_name="chat")["engine"] == "byzerllm"
    with pytest.raises(ByzerLLMError):
        llm.deploy(broken, udf_name="chat")
    assert llm.chat_oai(HELLO, model="chat", llm_config=SHORT), "the one that was there goes on"


def test_words_are_truth_values_as_they_say(llm, checkpoint, caplog):
    """`bool("false")` was True in places."""
    with caplog.at_level(logging.WARNING, "byzerllm"):
        llm.deploy(
            checkpoint,
            udf_name="chat",
            infer_params={"quatization": "false", "use_cache": False, "message_format": "false"},
        )
    assert "without_effect" not in llm._endpoint.status("chat")["spec"]["labels"]
    for value, bits in ((4, "4"), ("8", "8"), (True, "4"), ("true", "4"), (False, "off")):
        for key in ("quatization", "quantization"):
            llm.undeploy("chat", force=True)
            llm.deploy(checkpoint, udf_name="chat", infer_params={key: value})
            status = llm._endpoint.status("chat")
            assert status["spec"]["quantization"] == bits
            assert status["info"]["details"].get("quantization", {"asked": "off"})["asked"] == bits
    with pytest.raises(InvalidRequestError, match="use 4, 8, true"):
        llm.deploy(checkpoint, udf_name="other", infer_params={"quatization": "5"})
    llm.chat_oai(HELLO, model="chat", llm_config={**SHORT, "gen.early_stopping": "false"})
    with pytest.raises(InvalidRequestError, match="verbose"):
        ByzerLLM(verbose="perhaps")


def test_sampling_is_used_on_every_backend(llm, checkpoint):
    """Temperature and top_p did nothing with transformers, and its repetition penalty was fixed."""
    llm.setup_infer_backend("transformers").deploy(checkpoint, udf_name="chat")

    def answer(**config):
        return llm.chat_oai(HELLO, model="chat", llm_config={"max_length": 24, **config})[0].output

    greedy = answer(temperature=0)
    warm = {answer(temperature=5.0, **{"gen.seed": seed}) for seed in range(4)}
    assert len(warm) > 1 and warm != {greedy}
    assert answer(temperature=5.0, top_p=1e-6, **{"gen.seed": 1}) == greedy
    assert answer(temperature=0, **{"gen.repetition_penalty": 5.0}) != greedy


def test_the_older_chat_takes_a_batch(chat):
    answers = chat.chat("chat", LLMRequest(instruction=["one", "two", "one"], max_length=4, temperature=0))
    assert [answer.input["instruction"].count("one") for answer in answers] == [1, 0, 1]
    assert answers[0].output == answers[2].output


def test_templates_do_not_print_their_own_braces(llm):
    for template in (Templates.llama(), Templates.deepseek_code_chat()):
        llm.setup_template("m", template)
        llm.get_meta = lambda model, llm_config={}: {}
        messages = [{"role": "user", "content": "{v} {x}"}, {"role": "assistant", "content": "yes"}]
        text = llm.generate_instruction_from_history("m", messages, llm.mapping_role_mapping["m"])
        assert text.count("{v}") == 1 and "{x}" in text and "yes" in text


def test_programs_of_a_thin_client_load_nothing_heavy():
    program = (
        "import json, sys\nfrom byzerllm.utils.client import *\nimport byzerllm.utils, byzerllm.records\n"
        "from byzerllm.apps.agent import Agents\nfrom byzerllm.utils.retrieval import ByzerRetrieval\n"
        "from byzerllm.utils.client import FintuneRequest\nFintuneRequest('a', 'b', 'c')\n"
        "print(json.dumps([name for name in ('torch', 'ray', 'pydantic', 'numpy', 'langchain') if name in sys.modules]))"
    )
    done = run_program(program, env=dict(os.environ))
    assert json.loads(done.stdout) == [], done.stderr
