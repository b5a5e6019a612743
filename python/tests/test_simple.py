"""`SimpleByzerLLM` beside a vendor on this machine."""

import asyncio
import base64

import pydantic
import pytest
from vendor_stub import Vendor

import byzerllm
from byzerllm.errors import (
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    UpstreamError,
)
from byzerllm.utils.client import EventName, LLMRequest, SimpleByzerLLM

KEY = "sk-secret"


def client(vendor, **params):
    llm = SimpleByzerLLM(default_model_name="chat")
    done = llm.deploy(
        model_path="",
        pretrained_model_type="saas/openai",
        udf_name="chat",
        infer_params={"saas.base_url": vendor.url, "saas.api_key": KEY, "saas.model": "m-1", **params},
    )
    assert done == {"model": "chat", "status": "deployed"}
    return llm


def test_a_chat():
    with Vendor("Bonjour") as vendor:
        llm = client(vendor)
        response = llm.chat_oai([{"role": "user", "content": "Hi"}])[0]
        assert response.output == "Bonjour"
        metadata = response.metadata
        assert metadata["input_tokens_count"] == 3 and metadata["generated_tokens_count"] == 7
        assert metadata["finish_reason"] == "stop" and metadata["reasoning_content"] == "hm"
        assert metadata["request_id"] == "r1" and metadata["first_token_time"] == 0 and metadata["speed"] > 0
        assert vendor.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert vendor.requests[0] == {
            "path": "/v1/chat/completions",
            "model": "m-1",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 8096,
        }


def test_parameters():
    with Vendor() as vendor:
        llm = client(vendor).setup_extra_generation_params("chat", {"generation.top_p": 0.5})
        llm.chat_oai(
            "Hi", llm_config={"temperature": 0, "stop": '["a", "b"]', "max_tokens": 5, "gen.seed": 1}
        )
        sent = vendor.requests[-1]
        assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]) == (0, 0.5, 5, 1)
        assert sent["stop"] == ["a", "b"]
        llm.chat_oai("Hi", llm_config={"gen.stop": ["c"]}, extra_request_params={"thinking": {"type": "off"}})
        assert vendor.requests[-1]["stop"] == ["c"] and vendor.requests[-1]["thinking"] == {"type": "off"}
        with pytest.raises(InvalidRequestError, match="temperature"):
            llm.chat_oai("Hi", llm_config={"temprature": 0})
        llm = client(vendor, **{"saas.is_reasoning": "true", "saas.max_output_tokens": "100"})
        llm.chat_oai("Hi", llm_config={"temperature": 0})
        assert "temperature" not in vendor.requests[-1] and vendor.requests[-1]["max_tokens"] == 100


def test_prefixes():
    with Vendor() as vendor:
        llm = client(vendor)
        two = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "So"}]
        llm.chat_oai(two)
        assert vendor.requests[-1]["messages"][-1] == {"role": "assistant", "content": "So"}
        llm.chat_oai("Hi", llm_config={"response_prefix": "Well"})
        assert vendor.requests[-1]["messages"][-1] == {"role": "assistant", "content": "Well"}
        llm = client(vendor, **{"saas.base_url": vendor.url + "/deepseek"})
        llm.chat_oai(two)
        assert vendor.requests[-1]["messages"][-1] == {"role": "assistant", "content": "So", "prefix": True}
        llm = client(vendor, **{"saas.base_url": vendor.url + "/siliconflow"})
        llm.chat_oai(two)
        assert vendor.requests[-1]["prefix"] == "So" and len(vendor.requests[-1]["messages"]) == 1


def test_streams():
    with Vendor("abc") as vendor:
        llm = client(vendor)
        items = list(llm.stream_chat_oai("Hi"))
        assert [text for text, _ in items] == ["", "a", "ab", "abc"]
        meta = items[-1].meta
        assert (
            meta.generated_tokens_count == 3
            and meta.finish_reason == "stop"
            and meta.reasoning_content == "hm"
        )
        assert "".join(text for text, _ in llm.stream_chat_oai("Hi", delta_mode=True)) == "abc"
        assert vendor.requests[0]["stream"] is True

        async def main():
            texts = [text async for text, _ in llm.async_stream_chat_oai("Hi")]
            answers = await asyncio.gather(*(llm.async_chat_oai("Hi") for _ in range(8)))
            return texts, [answer[0].output for answer in answers]

        assert asyncio.run(main()) == (["", "a", "ab", "abc"], ["abc"] * 8)


def test_a_closed_stream_ends_its_connection():
    with Vendor(["x" * 10_000] * 20_000) as vendor:
        stream = client(vendor).stream_chat_oai("Hi")
        next(stream)
        next(stream)
        stream.close()
        assert vendor.gone.wait(30)


def test_failures():
    cases = [
        ((401, '{"error": {"message": "bad key"}}'), UnauthenticatedError, "bad key"),
        ((404, "no such model"), NotFoundError, "no such model"),
        ((400, "bad"), InvalidRequestError, "HTTP 400"),
        ((500, "oops"), UpstreamError, "HTTP 500"),
        ((302, "", ("Location", "http://127.0.0.1:1/")), UpstreamError, "HTTP 302"),
        ({"error": {"message": "quota"}}, UpstreamError, "quota"),
        ({"choices": []}, UpstreamError, "no choices"),
    ]
    for answer, error, words in cases:
        with Vendor(answer) as vendor:
            with pytest.raises(error, match=words) as raised:
                client(vendor).chat_oai("Hi")
            assert KEY not in str(raised.value)
    with Vendor((429, "slow down", ("Retry_After", "7"))) as vendor:
        with pytest.raises(
            RateLimitedError, match=r"chat \(base_url=http://127.0.0.1:\d+/v1, model=m-1\)"
        ) as raised:
            client(vendor).chat_oai("Hi")
        assert raised.value.retry_after == 7.0
    with Vendor() as vendor:
        llm = client(vendor)
    with pytest.raises(UnavailableError):
        llm.chat_oai("Hi")


def test_a_stream_that_breaks_off_is_no_answer():
    with Vendor((200, 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')) as vendor:
        stream = client(vendor).stream_chat_oai("Hi")
        with pytest.raises(UpstreamError, match="without its end"):
            list(stream)


def test_deployments():
    llm = SimpleByzerLLM()
    params = {"saas.api_key": KEY}
    with pytest.raises(ValueError, match="saas/"):
        llm.deploy("", "custom/auto", "chat", params)
    with pytest.raises(ValueError, match=r"saas\.api_key"):
        llm.deploy("", "saas/openai", "chat", {})
    with pytest.raises(ValueError, match=r"saas\.base_url"):
        llm.deploy("", "saas/openai", "chat", {**params, "saas.base_ulr": "x"})
    with pytest.raises(ValueError, match="http"):
        llm.deploy("", "saas/openai", "chat", {**params, "saas.base_url": "file:///etc/passwd"})
    llm.deploy("", "saas/openai", "chat", params)
    assert llm.is_model_exist("chat")
    meta = llm.get_meta("chat")
    assert (
        meta["backend"] == "openai" and meta["max_model_len"] == 8192 and meta["model_deploy_type"] == "saas"
    )
    assert meta["deploy_info"]["base_url"] == "https://api.deepseek.com/v1" and KEY not in str(meta)
    assert llm.setup_default_model_name("chat").metadata.num_output == 8096
    llm.undeploy("chat")
    assert not llm.is_model_exist("chat")
    with pytest.raises(ValueError, match="deploy first"):
        llm.get_meta("chat")
    for refused in ({"tools": [print]}, {"impl_func": print}, {"response_after_chat": True}):
        with pytest.raises(UnsupportedError, match=next(iter(refused))):
            llm.chat_oai("x", **refused)


def test_embeddings():
    with Vendor() as vendor:
        llm = client(vendor).setup_default_emb_model_name("chat")
        assert [row.output for row in llm.emb(None, ["a", "bcd"])] == [[1.0, 1.0], [3.0, 1.0]]
        assert llm.emb("chat", LLMRequest(instruction="ab"))[0].output == [2.0, 1.0]
        assert llm.emb_query("abc")[0].output == [3.0, 1.0]


def test_images(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")
    with Vendor() as vendor:
        client(vendor).chat_oai(f"<_image_>{picture}</_image_>What is it?")
        data = base64.b64encode(b"png").decode()
        assert vendor.requests[0]["messages"][0]["content"] == [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "text", "text": "What is it?"},
        ]


def test_classes_callbacks_and_prompt_functions():
    class Story(pydantic.BaseModel):
        title: str

    with Vendor('{"title": "T"}', "none", "plain", "streamed", "replaced") as vendor:
        llm = client(vendor)
        answer = llm.chat_oai("Tell", response_class=Story)[0]
        assert answer.value == Story(title="T") and answer.metadata["reason"] == ""
        answer = llm.chat_oai("Tell", response_class=Story)[0]
        assert answer.value is None and "json" in answer.metadata["reason"].lower()

        @byzerllm.prompt(llm)
        def ask(question: str) -> str:
            """{{ question }}?"""

        holder = byzerllm.MetaHolder()
        assert ask.with_meta(holder)("why") == "plain"
        assert holder.get_meta_model().generated_tokens_count == 5
        assert "".join(text for text, _ in llm.stream_chat_oai("x", delta_mode=True)) == "streamed"
        llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *_: (False, [{"predict": "given"}]))
        assert llm.chat_oai("x")[0].output == "given"
        assert [text for text, _ in llm.stream_chat_oai("x")] == ["given"]


def test_two_clients_share_nothing():
    first, second = SimpleByzerLLM(), SimpleByzerLLM.from_default_model("other")
    first.deploy("", "saas/openai", "chat", {"saas.api_key": KEY})
    assert not second.is_model_exist("chat") and second.default_model_name == "other"
