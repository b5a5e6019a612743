"""The server through the official `openai` package: every test with its blocking and with its async client."""

import asyncio
import base64
import inspect
import json
import math
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Literal

import openai
import pydantic
import pytest
from conftest import PATIENCE, scripted, until

from byzerllm.utils.client import ByzerLLM

HELLO = [{"role": "user", "content": "hello"}]
SHORT = {"model": "chat", "messages": HELLO, "max_tokens": 6, "temperature": 0}


class Blocking:
    """The async client, awaited call by call, so that one test serves both."""

    def __init__(self, loop, target):
        self._loop = loop
        self._target = target

    def __getattr__(self, name):
        value = getattr(self._target, name)
        # What holds methods, and the methods, await; everything else is a plain value.
        own = callable(value) or type(value).__module__.startswith("openai.resources")
        return Blocking(self._loop, value) if own else value

    def __call__(self, *arguments, **options):
        return self._finished(self._target(*arguments, **options))

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self._loop.run_until_complete(self._target.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self):
        return self._finished(self._target.__aenter__())

    def __exit__(self, *problem):
        return self._finished(self._target.__aexit__(*problem))

    def _finished(self, value):
        if inspect.isawaitable(value) and not hasattr(value, "__aiter__"):

            async def finish():
                return await value

            value = self._loop.run_until_complete(finish())
        if hasattr(value, "__anext__") or hasattr(value, "__aenter__"):
            return Blocking(self._loop, value)
        if hasattr(value, "__aiter__"):
            return Blocking(self._loop, value.__aiter__())
        return value


@pytest.fixture(params=["blocking", "async"])
def connect(request):
    """Makes clients of either kind."""
    made = []
    loop = asyncio.new_event_loop() if request.param == "async" else None

    def make(server, **options):
        options = {"base_url": f"{server.url}/v1", "api_key": "anything", "max_retries": 0, **options}
        client = openai.AsyncOpenAI(**options) if loop else openai.OpenAI(**options)
        made.append(Blocking(loop, client) if loop else client)
        return made[-1]

    yield make
    for client in made:
        client.close()
    if loop:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.fixture
def api(start_server, connect, checkpoint):
    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")
    return connect(server)


def test_models(api):
    assert [model.id for model in api.models.list()] == ["chat"]
    assert api.models.retrieve("chat").object == "model"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("nobody")


def test_a_chat(api):
    answer = api.chat.completions.create(model="chat", messages=HELLO, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion" and answer.model == "chat"
    [choice] = answer.choices
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_equals_the_answer(api):
    arguments = {"model": "chat", "messages": HELLO, "max_tokens": 30, "seed": 4, "temperature": 1}
    whole = api.chat.completions.create(**arguments)
    chunks = list(
        api.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    without = list(api.chat.completions.create(**arguments, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in without)


def test_several_choices(api):
    arguments = {"model": "chat", "messages": HELLO, "max_tokens": 8, "seed": 4, "temperature": 1, "n": 3}
    answer = api.chat.completions.create(**arguments)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1
    streamed = ["", "", ""]
    for chunk in api.chat.completions.create(**arguments, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_log_probabilities(api):
    answer = api.chat.completions.create(
        model="chat", messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens or answer.choices[0].finish_reason == "stop"
    for token in content:
        assert len(token.top_logprobs) == 2
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert isinstance(token.bytes, list)


def test_stop_and_length(api):
    arguments = {"model": "chat", "messages": HELLO, "max_tokens": 40, "temperature": 0}
    text = api.chat.completions.create(**arguments).choices[0].message.content
    middle = text[len(text) // 2]
    stopped = api.chat.completions.create(**arguments, stop=[middle]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == text.split(middle)[0]


def test_completions(api):
    arguments = {"model": "chat", "max_tokens": 6, "temperature": 0}
    text = api.completions.create(prompt="hello", **arguments)
    assert text.object == "text_completion" and text.choices[0].finish_reason in ("stop", "length")
    echoed = api.completions.create(prompt="hello", echo=True, **arguments)
    assert echoed.choices[0].text == "hello" + text.choices[0].text
    ids = ByzerLLM().tokenize("chat", "hello")[0].output[0]
    assert api.completions.create(prompt=ids, **arguments).choices[0].text == text.choices[0].text
    streamed = api.completions.create(prompt="hello", stream=True, **arguments)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == text.choices[0].text


def test_scoring_a_prompt(api):
    scored = api.completions.create(model="chat", prompt="hello", echo=True, logprobs=1, max_tokens=0)
    logprobs = scored.choices[0].logprobs
    assert scored.choices[0].text == "hello" and scored.usage.completion_tokens == 0
    assert logprobs.token_logprobs[0] is None and all(value < 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == scored.usage.prompt_tokens


def test_errors(api):
    with pytest.raises(openai.NotFoundError, match="nobody"):
        api.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="chat", messages=HELLO, temperature=-1)
    assert caught.value.param == "temperature" and caught.value.code == "invalid_request"
    with pytest.raises(openai.BadRequestError, match="wings"):
        api.chat.completions.create(model="chat", messages=HELLO, extra_body={"wings": 2})
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="chat", messages=[{"role": "user", "content": "word " * 500}])
    assert caught.value.code == "context_length_exceeded" and "256" in str(caught.value)


def test_many_calls_of_the_async_client(start_server, checkpoint):
    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            answers = await asyncio.gather(*(client.chat.completions.create(**SHORT) for _ in range(32)))
            streams = await asyncio.gather(
                *(client.chat.completions.create(**SHORT, stream=True) for _ in range(8))
            )
            texts = {answer.choices[0].message.content for answer in answers}
            for stream in streams:
                texts.add("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
            return texts

    assert len(asyncio.run(ask())) == 1


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOLS = "{% for tool in tools or [] %}<tool_call>{{ tool | tojson }}\n{% endfor %}"
CONVERSATION = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name }} {{ call.function.arguments.city }}{% endfor %}\n{% endfor %}assistant:"
)
CALL = [
    "One moment.\n<tool_",
    'call>\n{"name": "weather", "argu',
    'ments": {"city": "Pa',
    'ris"}}\n</tool_call>',
]


@pytest.fixture
def answering(start_server, connect, tmp_path):
    """A client whose model answers with given texts, a token each."""

    def make(pieces):
        server = start_server()
        template = TOOLS + CONVERSATION + "{# <think> #}"
        ByzerLLM().deploy(scripted(tmp_path / "scripted", pieces, template), udf_name="chat")
        return connect(server)

    return make


def test_tool_calls(answering):
    api = answering(["<think>Rain?", "</think>\n", *CALL])
    arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER], "temperature": 0}
    [choice] = api.chat.completions.create(**arguments).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "One moment." and choice.message.reasoning_content == "Rain?"
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert call.function.arguments == '{"city": "Paris"}' and call.id

    name, pieces, text, reasons = None, [], "", []
    for chunk in api.chat.completions.create(**arguments, stream=True):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        reasons.append(choice.finish_reason)
        for delta in choice.delta.tool_calls or []:
            assert delta.index == 0
            name = name or delta.function.name
            pieces.append(delta.function.arguments)
    assert (name, "".join(pieces), text) == ("weather", '{"city": "Paris"}', "One moment.")
    assert len([piece for piece in pieces if piece]) > 1 and reasons[-1] == "tool_calls"

    # The call and its result go back in.
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    called = {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}
    api.chat.completions.create(**{**arguments, "messages": [*HELLO, called, result]})

    without = api.chat.completions.create(**arguments, tool_choice="none").choices[0]
    assert without.finish_reason == "stop" and "<tool_call>" in without.message.content


def test_a_wrong_tool_call_is_text(answering):
    api = answering(["<tool_call>", '{"name": "rm"}', "</tool_call>"])
    arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER], "temperature": 0}
    [choice] = api.chat.completions.create(**arguments).choices
    assert choice.finish_reason == "stop" and choice.message.tool_calls is None
    assert choice.message.content == '<tool_call>{"name": "rm"}</tool_call>'
    assert choice.error["code"] == "invalid_tool_call" and "rm" in choice.error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_can_be_demanded(answering, choice):
    api = answering(["No."])
    arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER], "temperature": 0}
    [answer] = api.chat.completions.create(**arguments, tool_choice=choice).choices
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_structured_output(api):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    arguments = {"model": "chat", "messages": HELLO, "max_tokens": 100, "temperature": 0}
    answer = api.chat.completions.create(
        **arguments,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "c", "schema": schema, "strict": True},
        },
    )
    assert json.loads(answer.choices[0].message.content)["colour"] in ("red", "blue")
    guided = api.chat.completions.create(**arguments, extra_body={"guided_choice": ["yes", "no"]})
    assert guided.choices[0].message.content in ("yes", "no")
    with pytest.raises(openai.BadRequestError, match="contradict"):
        api.chat.completions.create(**arguments, extra_body={"guided_choice": ["a"], "guided_regex": "a"})


def test_penalties_and_biases(api):
    arguments = {"model": "chat", "messages": HELLO, "max_tokens": 6, "temperature": 0}
    biased = api.chat.completions.create(**arguments, logit_bias={"40": 100})
    assert len(set(biased.choices[0].message.content)) == 1
    api.chat.completions.create(**arguments, presence_penalty=1, frequency_penalty=1)
    long = api.chat.completions.create(
        **arguments, extra_body={"ignore_eos": True, "repetition_penalty": 1.1}
    )
    assert long.choices[0].finish_reason == "length" and long.usage.completion_tokens == 6


def test_tokens(api):
    def post(path, **body):
        url = str(api.base_url).removesuffix("/v1/") + path
        headers = {"content-type": "application/json"}
        data = json.dumps({"model": "chat", **body}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return json.load(answer)

    answer = post("/tokenize", prompt="hello world")
    assert answer["count"] == len(answer["tokens"]) > 0 and answer["max_model_len"] == 256
    assert post("/detokenize", tokens=answer["tokens"]) == {"prompt": "hello world"}


def test_a_seed_repeats_an_answer(api):
    arguments = {**SHORT, "max_tokens": 20, "temperature": 1}

    def answer(seed):
        return api.chat.completions.create(**arguments, seed=seed).choices[0].message.content

    assert answer(7) == answer(7) and len({answer(seed) for seed in range(4)}) > 1


def test_where_an_answer_ends(answering):
    api = answering(["one ", "two ", "three"])

    def end(**arguments):
        [choice] = api.chat.completions.create(
            model="chat", messages=HELLO, temperature=0, **arguments
        ).choices
        return choice.message.content, choice.finish_reason

    assert end() == ("one two three", "stop")
    assert end(max_tokens=2) == end(max_completion_tokens=2) == ("one two ", "length")
    assert end(stop="two") == end(stop=["x", "two"]) == ("one ", "stop")
    assert end(stop="e t") == ("on", "stop")
    assert end(stop=[]) == ("one two three", "stop")


def test_streamed_log_probabilities(api):
    arguments = {**SHORT, "logprobs": True, "top_logprobs": 3}
    whole = api.chat.completions.create(**arguments).choices[0].logprobs.content
    streamed = []
    for chunk in api.chat.completions.create(**arguments, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == whole and all(len(token.top_logprobs) == 3 for token in whole)
    assert all(sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.001 for token in whole)
    assert api.chat.completions.create(**SHORT).choices[0].logprobs is None


def test_the_raw_answer(api):
    raw = api.chat.completions.with_raw_response.create(**SHORT)
    assert raw.status_code == 200 and raw.headers["x-request-id"]
    completion = raw.parse()
    assert completion.object == "chat.completion"


# Streams.


def test_the_streaming_helper(answering):
    api = answering(["one ", "two ", "three"])
    arguments = {"model": "chat", "messages": HELLO, "temperature": 0}
    whole = api.chat.completions.create(**arguments)
    with api.chat.completions.stream(**arguments, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage and final.choices[0].finish_reason == whole.choices[0].finish_reason
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert [delta for delta in deltas if delta] == ["one ", "two ", "three"]


ENDLESS = {"model": "long", "messages": HELLO, "max_tokens": 50_000, "temperature": 0}


def test_leaving_a_stream_frees_the_engine(start_server, connect, endless):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long")
    stream = connect(server).chat.completions.create(**ENDLESS, stream=True)
    for _, chunk in zip(range(5), stream, strict=False):
        assert chunk.object == "chat.completion.chunk"
    assert llm._endpoint.status("long")["active"] == 1
    stream.close()
    until(lambda: llm._endpoint.status("long")["active"] == 0)


def test_a_timeout_of_the_client_frees_the_engine(start_server, connect, endless):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long")
    with pytest.raises(openai.APITimeoutError):
        connect(server, timeout=0.5).chat.completions.create(**ENDLESS)
    until(lambda: llm._endpoint.status("long")["active"] == 0)


def test_a_cancelled_task_frees_the_engine(start_server, endless):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long")

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            task = asyncio.ensure_future(client.chat.completions.create(**ENDLESS))
            while llm._endpoint.status("long")["active"] == 0:
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            until(lambda: llm._endpoint.status("long")["active"] == 0)

    asyncio.run(ask())


# Tools.


def test_tools_that_pydantic_describes(answering):
    class Weather(pydantic.BaseModel):
        """The weather in a city."""

        city: Literal["Paris", "Rome"]

    api = answering(["No."])
    tools = [openai.pydantic_function_tool(Weather, name="weather")]
    arguments = {"model": "chat", "messages": HELLO, "tools": tools, "temperature": 0}
    [choice] = api.chat.completions.parse(**arguments, tool_choice="required").choices
    [call] = choice.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    assert choice.finish_reason == "tool_calls"
    with api.chat.completions.stream(**arguments, tool_choice="required") as stream:
        events = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    [event] = events
    assert (event.name, event.parsed_arguments) == ("weather", call.function.parsed_arguments)


def test_the_named_one_of_several_tools_is_called(answering):
    api = answering(["No."])
    other = {
        "type": "function",
        "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
    }
    choice = {"type": "function", "function": {"name": "weather"}}
    arguments = {"model": "chat", "messages": HELLO, "temperature": 0}
    whole = api.chat.completions.create(**arguments, tools=[other, WEATHER], tool_choice=choice)
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "weather"
    streamed, name = "", None
    for chunk in api.chat.completions.create(
        **arguments, tools=[other, WEATHER], tool_choice=choice, stream=True
    ):
        for delta in chunk.choices[0].delta.tool_calls or []:
            name = name or delta.function.name
            streamed += delta.function.arguments or ""
    assert (name, streamed) == ("weather", call.function.arguments)
    with pytest.raises(openai.BadRequestError, match="nobody"):
        unknown = {"type": "function", "function": {"name": "nobody"}}
        api.chat.completions.create(**arguments, tools=[WEATHER], tool_choice=unknown)
    with pytest.raises(openai.BadRequestError):
        api.chat.completions.create(**arguments, tool_choice="required")


def test_two_calls_in_an_answer(answering):
    pieces = []
    for city in ("Paris", "Rome"):
        pieces += ['<tool_call>\n{"name": "weather", "arguments": {"city": "', city, '"}}\n</tool_call>\n']
    # A text must not come twice in the script, for every piece is a token of its own.
    pieces = [piece + " " * index if piece.endswith("\n") else piece for index, piece in enumerate(pieces)]
    pieces[3] = "\n" + pieces[3]
    api = answering(pieces)
    arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER], "temperature": 0}
    [choice] = api.chat.completions.create(**arguments).choices
    cities = [json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls]
    assert cities == ["Paris", "Rome"] and len({call.id for call in choice.message.tool_calls}) == 2
    streamed = {}
    for chunk in api.chat.completions.create(**arguments, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            streamed[delta.index] = streamed.get(delta.index, "") + (delta.function.arguments or "")
    assert [json.loads(text)["city"] for text in streamed.values()] == ["Paris", "Rome"]


# Structured output.


def test_a_json_object(answering):
    api = answering(['{"a', 'nswer": ', "42}"])
    arguments = {"model": "chat", "messages": HELLO, "temperature": 0, "max_tokens": 60}
    plain = api.chat.completions.create(**arguments, response_format={"type": "json_object"})
    assert json.loads(plain.choices[0].message.content) == {"answer": 42}
    assert plain.choices[0].finish_reason == "stop"


def test_a_json_object_is_enforced(answering):
    api = answering(["No, I will not."])
    arguments = {"model": "chat", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    free = api.chat.completions.create(**arguments).choices[0].message.content
    assert free == "No, I will not."
    forced = api.chat.completions.create(**arguments, response_format={"type": "json_object"})
    assert forced.choices[0].message.content.lstrip().startswith("{")


class Colour(pydantic.BaseModel):
    """What the model is asked for."""

    colour: Literal["red", "blue"]
    light: bool


def test_pydantic_models(answering):
    api = answering(['{"colour": "', "blue", '", "light": true', "}"])
    arguments = {"model": "chat", "messages": HELLO, "temperature": 0, "max_tokens": 40}
    answer = api.chat.completions.parse(**arguments, response_format=Colour)
    message = answer.choices[0].message
    assert message.parsed == Colour(colour="blue", light=True)
    assert answer.choices[0].finish_reason == "stop"
    with api.chat.completions.stream(**arguments, response_format=Colour) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == message.parsed
    with pytest.raises(openai.LengthFinishReasonError):
        api.chat.completions.parse(**{**arguments, "max_tokens": 2}, response_format=Colour)


def test_a_streamed_schema_equals_the_whole(api):
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 4}
    arguments = {
        **SHORT,
        "max_tokens": 60,
        "temperature": 1,
        "seed": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }
    whole = api.chat.completions.create(**arguments).choices[0].message.content
    assert 2 <= len(json.loads(whole)) <= 4 and set(json.loads(whole)) <= {1, 2, 3}
    chunks = api.chat.completions.create(**arguments, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    several = api.chat.completions.create(**arguments, n=3)
    assert all(2 <= len(json.loads(choice.message.content)) <= 4 for choice in several.choices)
    bad = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "wings"}}}
    with pytest.raises(openai.BadRequestError, match="wings"):
        api.chat.completions.create(**SHORT, response_format=bad)


# Completions.


def test_several_prompts_and_choices(api):
    arguments = {"model": "chat", "max_tokens": 5, "temperature": 1, "seed": 2}
    single = api.completions.create(prompt="hello", n=2, **arguments)
    answer = api.completions.create(prompt=["hello", "good day"], n=2, **arguments)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices[:2]] == [choice.text for choice in single.choices]
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    streamed = [""] * 4
    for chunk in api.completions.create(prompt=["hello", "good day"], n=2, stream=True, **arguments):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in answer.choices]


def test_log_probabilities_of_completions(answering):
    api = answering(["one ", "two ", "three"])
    arguments = {"model": "chat", "prompt": "hello", "max_tokens": 5, "temperature": 0, "logprobs": 2}
    [choice] = api.completions.create(**arguments).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text and logprobs.text_offset[0] == 0
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)
    for value, top in zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert value == pytest.approx(max(top.values())) and value <= 0
    streamed = []
    for chunk in api.completions.create(**arguments, stream=True):
        for part in chunk.choices:
            if part.logprobs:
                streamed += part.logprobs.token_logprobs
    assert streamed == logprobs.token_logprobs


def test_stops_and_usage_of_completions(answering):
    api = answering(["one ", "two ", "three"])
    arguments = {"model": "chat", "prompt": "hello", "temperature": 0}
    [choice] = api.completions.create(**arguments, stop=["two"]).choices
    assert (choice.text, choice.finish_reason) == ("one ", "stop")
    [choice] = api.completions.create(**arguments, max_tokens=2).choices
    assert (choice.text, choice.finish_reason) == ("one two ", "length")
    chunks = list(api.completions.create(**arguments, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens >= 3
    with pytest.raises(openai.BadRequestError, match="suffix"):
        api.completions.create(**arguments, suffix="x")


# Errors.


def keys(server, *arguments):
    """Makes a key and returns it."""
    command = [sys.executable, "-m", "byzerllm", "keys", "create", "--url", server.url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keys(start_server, connect, checkpoint):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(checkpoint, udf_name="chat")
    llm.deploy(checkpoint, udf_name="other")
    key = keys(server, "--name", "app", "--scope", "inference:chat")
    operator = keys(server, "--name", "operator", "--scope", "admin")
    api = connect(server, api_key=key)
    assert api.chat.completions.create(**SHORT).choices[0].message.role == "assistant"
    assert [model.id for model in api.models.list()] == ["chat"]
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.create(**{**SHORT, "model": "other"})
    for wrong in ("anything", key[:-1]):
        with pytest.raises(openai.AuthenticationError) as caught:
            connect(server, api_key=wrong).chat.completions.create(**SHORT)
        assert caught.value.status_code == 401 and caught.value.code == "unauthenticated"
        assert wrong not in str(caught.value)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        connect(server, api_key=operator).chat.completions.create(**SHORT)
    assert caught.value.status_code == 403 and caught.value.code == "permission_denied"


def test_a_full_server(start_server, connect, endless):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long", infer_params={"concurrency": 1, "queue_limit": 0})
    api = connect(server)
    stream = api.chat.completions.create(**ENDLESS, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as caught:
        api.chat.completions.create(**ENDLESS)
    assert caught.value.status_code == 429 and caught.value.code == "overloaded"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    stream.close()
    until(lambda: llm._endpoint.status("long")["active"] == 0)
    assert api.chat.completions.create(**{**ENDLESS, "max_tokens": 2}).usage.completion_tokens == 2


def test_a_server_that_is_gone(start_server, connect, checkpoint):
    server = start_server()
    api = connect(server)
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        list(api.models.list())


def test_what_a_text_model_is_not(api):
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        api.embeddings.create(model="chat", input="hello")
    with pytest.raises(openai.BadRequestError, match="image"):
        picture = {"url": "data:image/png;base64," + base64.b64encode(b"x").decode()}
        content = [{"type": "image_url", "image_url": picture}]
        api.chat.completions.create(model="chat", messages=[{"role": "user", "content": content}])


# A real model.


@pytest.mark.skipif(
    not os.environ.get("BYZERLLM_TEST_MODELS"), reason="BYZERLLM_TEST_MODELS names no directory"
)
def test_a_real_model(start_server):
    server = start_server()
    model = str(Path(os.environ["BYZERLLM_TEST_MODELS"]) / "smollm2.gguf")
    ByzerLLM().deploy(model, udf_name="chat", infer_params={"compute": "exact"})
    api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    arguments = {"model": "chat", "messages": question, "temperature": 0, "max_tokens": 40}
    answer = api.chat.completions.create(**arguments, logprobs=True)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (37, 8)
    pieces = [token.token for token in answer.choices[0].logprobs.content]
    assert "".join(pieces).startswith("The capital of France is Paris.")
    chunks = api.chat.completions.create(**arguments, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == (
        "The capital of France is Paris."
    )

    class Capital(pydantic.BaseModel):
        city: Literal["Paris", "Berlin", "Rome"]

    assert api.chat.completions.parse(**arguments, response_format=Capital).choices[0].message.parsed
