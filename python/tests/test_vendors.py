"""Vendors' models behind `ByzerLLM`: deployed and called like local ones, against simulated vendors."""

import asyncio

import pytest
from conftest import REPOSITORY

from byzerllm.errors import (
    ByzerLLMError,
    InvalidRequestError,
    PermissionDeniedError,
    UnsupportedError,
)
from byzerllm.utils.client import ByzerLLM, LLMRequest

CHAT = (
    "openai",
    "azure_openai",
    "zhipu",
    "qianwen",
    "baichuan",
    "minimax",
    "qianfan",
    "sparkdesk",
    "claude",
    "gemini",
    "deepseek",
    "moonshot",
    "siliconflow",
    "volcengine",
)
QUESTION = [{"role": "user", "content": "你好 hello"}]
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def deployed(simulated):
    """A client with a vendor's model as its default."""

    def deploy(vendor, *options, **parameters):
        found = simulated(vendor, *options)
        llm = ByzerLLM()
        llm.setup_num_workers(4).setup_gpus_per_worker(0)
        given = {**found.parameters, **{f"saas.{name}": value for name, value in parameters.items()}}
        llm.deploy(pretrained_model_type=found.kind, udf_name="m", infer_params=given)
        return llm.setup_default_model_name("m")

    return deploy


@pytest.mark.parametrize("vendor", CHAT)
def test_an_answer_and_its_stream(deployed, vendor):
    llm = deployed(vendor)
    meta = llm.get_meta("m")
    assert meta["model_deploy_type"] == meta["backend"] == "saas"
    whole = llm.chat_oai(QUESTION)[0]
    assert "你好 hello" in whole.output
    assert whole.metadata["input_tokens_count"] > 0 and whole.metadata["generated_tokens_count"] > 0
    pieces = [text for text, _ in llm.stream_chat_oai(QUESTION, delta_mode=True)]
    assert "".join(pieces) == whole.output
    assert len(pieces) > 1
    texts = [text for text, _ in llm.stream_chat_oai(QUESTION)]
    assert texts[-1] == whole.output
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))


def test_an_event_loop_waits_for_a_vendor(deployed):
    llm = deployed("qianwen")

    async def ask():
        return [text async for text, _ in llm.async_stream_chat_oai(QUESTION, delta_mode=True)]

    assert "".join(asyncio.run(ask())) == llm.chat_oai(QUESTION)[0].output


@pytest.mark.parametrize("incremental", [True, False])
def test_a_stream_is_the_same_with_and_without_incremental_output(deployed, incremental):
    llm = deployed("qianwen")
    config = {"gen.incremental_output": incremental}
    pieces = [text for text, _ in llm.stream_chat_oai(QUESTION, delta_mode=True, llm_config=config)]
    assert "".join(pieces) == llm.chat_oai(QUESTION)[0].output


@pytest.mark.parametrize("vendor, model", [("openai", "text-embedding-3-small"), ("baichuan", "Baichuan-Text-Embedding"), ("zhipu", "embedding-2"), ("qianwen", "text-embedding-v2")])
def test_vectors(deployed, vendor, model):
    llm = deployed(vendor, model=model).setup_default_emb_model_name("m")
    one = llm.emb(None, LLMRequest(instruction="你好"))[0].output
    assert one and all(isinstance(number, float) for number in one)
    assert [found.output for found in llm.emb("m", ["你好", "hello"])][0] == one
    assert llm.emb_query("你好")[0].output == one
    assert llm.emb("m", "hello")[0].output != one
    assert llm.get_meta("m")["embedding_mode"] is True


def test_images_between_tags_and_in_parts(deployed):
    llm = deployed("openai")
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    tagged = f"<_image_>{PICTURE}</_image_> What is this?"
    answers = [llm.chat_oai([{"role": "user", "content": content}])[0].output for content in (parts, tagged)]
    assert answers[0] == answers[1] and "What is this?" in answers[0]


def test_a_wrong_key_is_an_error_and_not_an_answer(simulated):
    found = simulated("zhipu", "--api-key", "right.key-123456")
    llm = ByzerLLM()
    given = {**found.parameters, "saas.api_key": "canary.wrong-key-98765"}
    llm.deploy(pretrained_model_type="saas/zhipu", udf_name="m", infer_params=given)
    with pytest.raises(PermissionDeniedError) as caught:
        llm.chat_oai(QUESTION, model="m")
    assert "saas.api_key" in str(caught.value) and "98765" not in str(caught.value)


def test_mistakes_of_a_deployment_name_what_is_meant():
    llm = ByzerLLM()
    for kind, given, error, said in [
        ("saas/zhipoo", {}, ByzerLLMError, "saas/zhipu"),
        ("saas/zhipu", {"saas.api_kye": "x"}, InvalidRequestError, "saas.api_key"),
        ("saas/zhipu", {"saas.model": "glm-4"}, InvalidRequestError, "saas.api_key"),
        ("saas/sparkdesk", {"saas.appid": "a", "saas.api_key": "b"}, InvalidRequestError, "saas.api_secret"),
    ]:
        with pytest.raises(error, match=said):
            llm.deploy(pretrained_model_type=kind, udf_name="m", infer_params=given)


def test_a_parameter_that_a_vendor_does_not_take_is_refused_by_name(deployed):
    llm = deployed("zhipu")
    with pytest.raises(UnsupportedError, match="min_p"):
        llm.chat_oai(QUESTION, llm_config={"gen.min_p": 0.1})
    with pytest.raises(ByzerLLMError, match="no_such_thing"):
        llm.chat_oai(QUESTION, llm_config={"gen.no_such_thing": 1})


def test_secrets_come_from_variables_and_files(simulated, monkeypatch, tmp_path):
    found = simulated("openai", "--api-key", "sk-canary-0123456789")
    monkeypatch.setenv("VENDOR_KEY", "sk-canary-0123456789")
    file = tmp_path / "key"
    file.write_text("sk-canary-0123456789\n")
    file.chmod(0o600)
    llm = ByzerLLM()
    for name, reference in [("by_env", "env:VENDOR_KEY"), ("by_file", f"file:{file}")]:
        given = {**found.parameters, "saas.api_key": reference}
        llm.deploy(pretrained_model_type="saas/openai", udf_name=name, infer_params=given)
        assert "hello" in llm.chat_oai(QUESTION, model=name)[0].output


def test_a_function_is_called_at_a_vendor(deployed):
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    llm = deployed("openai")
    found = llm.chat_oai(QUESTION, tools=[add], tool_choice=add, execute_tool=True)[0]
    assert len(found.values) == 1 and isinstance(found.values[0], int)


def test_the_readme_names_vendors_that_exist():
    text = (REPOSITORY / "docs" / "vendors.md").read_text()
    for vendor in CHAT:
        assert vendor in text
