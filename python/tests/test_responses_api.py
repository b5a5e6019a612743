"""OpenAI's Responses API through the official `openai` package: local models, and vendors behind."""

import json
import subprocess
import sys
from typing import Literal

import openai
import pydantic
import pytest
from conftest import PATIENCE, scripted

from byzerllm.utils.client import ByzerLLM

SHORT = {"model": "chat", "input": "hello", "max_output_tokens": 12, "temperature": 0}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def connect(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)


@pytest.fixture
def api(chatting):
    with connect(chatting) as client:
        yield client


@pytest.fixture
def calling(thinking):
    """A client whose model thinks, says something and calls."""
    with connect(thinking) as client:
        yield client


def test_a_response(api):
    answer = api.responses.create(**SHORT, instructions="Be brief.", metadata={"a": "b"})
    assert (answer.object, answer.model, answer.store) == ("response", "chat", False)
    assert answer.status in ("completed", "incomplete") and answer.instructions == "Be brief."
    assert answer.output_text == answer.output[0].content[0].text and answer.metadata == {"a": "b"}
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0
    listed = api.responses.create(**{**SHORT, "input": [{"role": "user", "content": "hello"}]})
    assert listed.output_text == api.responses.create(**SHORT).output_text


def test_a_stream_equals_the_response(api):
    whole = api.responses.create(**SHORT)
    events = list(api.responses.create(**SHORT, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == f"response.{whole.status}" and last.response.output_text == text == whole.output_text
    assert last.response.usage.output_tokens == whole.usage.output_tokens
    with api.responses.stream(**SHORT) as stream:
        for event in stream:
            if event.type == "response.output_text.done":
                assert event.text == text


def check_call(output):
    reasoning, message, call = output
    assert (reasoning.type, reasoning.content[0].text) == ("reasoning", "Rain?")
    assert (message.type, message.content[0].text) == ("message", "One moment.")
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments) == {"city": "Paris"}
    return call


def test_calls_and_thoughts(calling):
    arguments = {**SHORT, "max_output_tokens": 100, "tools": [WEATHER]}
    answer = calling.responses.create(**arguments)
    call = check_call(answer.output)
    with calling.responses.stream(**arguments) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        check_call(stream.get_final_response().output)
    assert "".join(pieces) == call.arguments and len(pieces) > 1

    # The items and the call's result go back in.
    items = [{"role": "user", "content": "hello"}, *answer.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."})
    check_call(calling.responses.create(**{**arguments, "input": items}).output)
    demanded = calling.responses.create(**arguments, tool_choice={"type": "function", "name": "weather"})
    assert json.loads(demanded.output[-1].arguments)["city"] in ("Paris", "Rome")


class Colour(pydantic.BaseModel):
    colour: Literal["red", "blue"]


def test_structure(api):
    arguments = {**SHORT, "max_output_tokens": 100}
    answer = api.responses.parse(**arguments, text_format=Colour)
    assert answer.output_parsed.colour in ("red", "blue")
    loose = api.responses.create(**arguments, text={"format": {"type": "text"}})
    assert loose.text.format.type == "text"


def test_what_needs_a_memory_is_refused(api):
    memories = {"store": True, "previous_response_id": "resp_1", "conversation": "c", "background": True}
    for more in ({name: value} for name, value in memories.items()):
        with pytest.raises(openai.BadRequestError) as caught:
            api.responses.create(**SHORT, **more)
        assert caught.value.param == next(iter(more)) and caught.value.code == "unsupported"
    assert api.responses.create(**SHORT, store=False).store is False
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
    with pytest.raises(openai.BadRequestError, match="image"):
        api.responses.create(**{**SHORT, "input": [{"role": "user", "content": [picture]}]})


def deployed(server, behind, name="chat", **more):
    """Deploys a simulated vendor's model."""
    command = [sys.executable, "-m", "byzerllm", "deploy", "--url", server.url, "--name", name]
    command += ["--type", behind.kind]
    for key, value in {**behind.parameters, **more}.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


VENDORS = ("openai", "zhipu", "qianwen", "minimax", "claude", "gemini", "sparkdesk")


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_behind(start_server, simulated, vendor):
    server, behind = start_server(), simulated(vendor)
    deployed(server, behind)
    with connect(server) as client:
        whole = client.responses.create(model="chat", input="hello", max_output_tokens=200)
        assert whole.status == "completed" and whole.output_text
        stream = client.responses.create(model="chat", input="hello", max_output_tokens=200, stream=True)
        events = list(stream)
        assert events[-1].response.output_text == whole.output_text
        assert events[-1].response.usage.output_tokens == whole.usage.output_tokens > 0

        messages = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=200)
        assert answer.choices[0].message.content == whole.output_text
        assert answer.usage.completion_tokens == whole.usage.output_tokens
        chunks = list(
            client.chat.completions.create(
                model="chat",
                messages=messages,
                max_tokens=200,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.output_text and chunks[-1].usage == answer.usage
        completion = client.completions.create(model="chat", prompt="hello", max_tokens=200)
        assert completion.choices[0].text == whole.output_text


def test_embeddings_of_a_vendor(start_server, simulated):
    server, behind = start_server(), simulated("openai")
    deployed(server, behind, "embed", **{"saas.model": "text-embedding-3-small"})
    with connect(server) as client:
        floats = client.embeddings.create(model="embed", input=["hello", "you"], encoding_format="float")
        # The package asks for base64 when nothing is said.
        packed = client.embeddings.create(model="embed", input=["hello", "you"])
        assert [item.index for item in floats.data] == [0, 1] and floats.usage.prompt_tokens > 0
        for one, other in zip(floats.data, packed.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding)
        small = client.embeddings.create(model="embed", input="hello", dimensions=8)
        assert len(small.data[0].embedding) == 8
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="embed", input=[])
        assert caught.value.param == "input"
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="nobody", input="hello")


def test_images_and_parameters_of_a_vendor(start_server, simulated):
    server = start_server()
    deployed(server, simulated("openai"))
    deployed(server, simulated("qianwen"), "qianwen")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "What is it?"}, picture]
    with connect(server) as client:
        seen = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": content}])
        assert seen.choices[0].message.content
        messages = [{"role": "user", "content": "hello"}]
        client.chat.completions.create(model="qianwen", messages=messages, extra_body={"enable_search": True})
        with pytest.raises(openai.BadRequestError) as caught:
            arguments = {"model": "chat", "messages": messages}
            client.chat.completions.create(**arguments, extra_body={"enable_search": True})
        assert caught.value.param == "enable_search"
