"""Anthropic's Messages API through the official `anthropic` package: local models, and vendors behind."""

import asyncio
import json
import subprocess
import sys

import anthropic
import pytest
from conftest import PATIENCE, scripted

from byzerllm.utils.client import ByzerLLM

HELLO = [{"role": "user", "content": "hello"}]
# The package has no name for the temperature.
SHORT = {"model": "chat", "messages": HELLO, "max_tokens": 12, "extra_body": {"temperature": 0}}
WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def connect(server, **options):
    return anthropic.Anthropic(base_url=server.url, **{"api_key": "anything", "max_retries": 0, **options})


@pytest.fixture
def api(chatting):
    with connect(chatting) as client:
        yield client


@pytest.fixture
def calling(thinking):
    """A client whose model thinks, says something and calls."""
    with connect(thinking) as client:
        yield client


def test_a_message(api):
    answer = api.messages.create(
        **SHORT, system="Be brief.", stop_sequences=["zzzz"], metadata={"user_id": "u"}
    )
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "chat")
    assert answer.id.startswith("msg_") and answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= 12
    assert [block.type for block in answer.content] == ["text"]
    blocks = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]
    same = api.messages.create(**{**SHORT, "messages": [{"role": "user", "content": blocks}]})
    assert same.content[0].text == api.messages.create(**SHORT).content[0].text


def test_a_stream_equals_the_message(api):
    whole = api.messages.create(**SHORT)
    kinds = [event.type for event in api.messages.create(**SHORT, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    with api.messages.stream(**SHORT) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    prompt = [
        usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        for usage in (final.usage, whole.usage)
    ]
    assert prompt[0] == prompt[1] > 0


def check_call(message):
    thinking, text, call = message.content
    assert (thinking.type, thinking.thinking, thinking.signature) == ("thinking", "Rain?", "")
    assert (text.type, text.text) == ("text", "One moment.")
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Paris"})
    assert message.stop_reason == "tool_use"
    return call


def test_calls_and_thoughts(calling):
    arguments = {**SHORT, "max_tokens": 100, "tools": [WEATHER]}
    answer = calling.messages.create(**arguments)
    call = check_call(answer)
    with calling.messages.stream(**arguments) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        check_call(stream.get_final_message())
    assert "".join(pieces) == '{"city": "Paris"}' and len(pieces) > 1

    # The answer and the call's result go back in.
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny.", "is_error": False}
    messages = [*HELLO, answer.to_param(), {"role": "user", "content": [result]}]
    check_call(calling.messages.create(**{**arguments, "messages": messages}))
    demanded = calling.messages.create(**arguments, tool_choice={"type": "tool", "name": "weather"})
    assert demanded.stop_reason == "tool_use" and demanded.content[-1].input["city"] in ("Paris", "Rome")
    plain = calling.messages.create(**arguments, tool_choice={"type": "none"})
    assert plain.stop_reason == "end_turn" and "<tool_call>" in plain.content[-1].text


def test_structure(api):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    answer = api.messages.create(
        **{**SHORT, "max_tokens": 100}, output_config={"format": {"type": "json_schema", "schema": schema}}
    )
    assert json.loads(answer.content[0].text)["colour"] in ("red", "blue")


def test_counting(api):
    counted = api.messages.count_tokens(model="chat", messages=HELLO).input_tokens
    usage = api.messages.create(**SHORT).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_counting_tools(calling):
    arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER]}
    counted = calling.messages.count_tokens(**arguments).input_tokens
    usage = calling.messages.create(**arguments, max_tokens=100).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert counted > calling.messages.count_tokens(model="chat", messages=HELLO).input_tokens


def test_errors(api):
    with pytest.raises(anthropic.NotFoundError, match="nobody") as caught:
        api.messages.create(**{**SHORT, "model": "nobody"})
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        api.messages.create(**{**SHORT, "extra_body": {"temperature": -1}})
    with pytest.raises(anthropic.BadRequestError, match="context_length_exceeded"):
        api.messages.create(**{**SHORT, "messages": [{"role": "user", "content": "word " * 500}]})
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        thinking = {"type": "enabled", "budget_tokens": 1024}
        api.messages.create(**{**SHORT, "max_tokens": 2048}, thinking=thinking)
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\].*image"):
        api.messages.create(**{**SHORT, "messages": [{"role": "user", "content": [picture]}]})
    with pytest.raises(anthropic.BadRequestError, match="last message"):
        api.messages.create(**{**SHORT, "messages": [*HELLO, {"role": "assistant", "content": "The"}]})


def test_keys(start_server, checkpoint):
    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")
    command = [sys.executable, "-m", "byzerllm", "keys", "create", "--url", server.url, "--name", "app"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    key = done.stdout.strip()
    for options in ({"api_key": key}, {"api_key": None, "auth_token": key}):
        with connect(server, **options) as client:
            assert client.messages.create(**SHORT).role == "assistant"
    with connect(server, api_key="other") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**SHORT)
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_the_async_client(start_server, checkpoint):
    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")

    async def ask():
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=0) as client:
            answers = await asyncio.gather(*(client.messages.create(**SHORT) for _ in range(8)))
            async with client.messages.stream(**SHORT) as stream:
                texts = {await stream.get_final_text()}
            return texts | {answer.content[0].text for answer in answers}

    assert len(asyncio.run(ask())) == 1


VENDORS = ("openai", "zhipu", "qianwen", "minimax", "claude", "gemini", "sparkdesk")


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_behind(start_server, simulated, vendor):
    server, behind = start_server(), simulated(vendor)
    command = [sys.executable, "-m", "byzerllm", "deploy", "--url", server.url, "--name", "chat"]
    command += ["--type", behind.kind]
    for name, value in behind.parameters.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    with connect(server) as client:
        arguments = {"model": "chat", "messages": HELLO, "max_tokens": 200}
        whole = client.messages.create(**arguments)
        text = "".join(block.text for block in whole.content if block.type == "text")
        assert text and whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0
        with client.messages.stream(**arguments) as stream:
            streamed = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert streamed == text
        assert final.usage.output_tokens == whole.usage.output_tokens
        assert final.stop_reason == whole.stop_reason == "end_turn"
        with pytest.raises(anthropic.BadRequestError, match="tokenizer"):
            client.messages.count_tokens(model="chat", messages=HELLO)
