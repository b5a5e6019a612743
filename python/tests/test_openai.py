"""The server through the official `openai` client."""

import json
import urllib.request

import openai
import pytest

from byzerllm.utils.client import ByzerLLM

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def api(start_server, checkpoint):
    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


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


def test_the_client_for_event_loops(start_server, checkpoint):
    import asyncio

    server = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            arguments = {"model": "chat", "messages": HELLO, "max_tokens": 6, "temperature": 0}
            answers = await asyncio.gather(*(client.chat.completions.create(**arguments) for _ in range(8)))
            return {answer.choices[0].message.content for answer in answers}

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


def answering(start_server, tmp_path, pieces):
    from conftest import scripted

    server = start_server()
    template = TOOLS + CONVERSATION + "{# <think> #}"
    ByzerLLM().deploy(scripted(tmp_path / "scripted", pieces, template), udf_name="chat")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)


def test_tool_calls(start_server, tmp_path):
    with answering(start_server, tmp_path, ["<think>Rain?", "</think>\n", *CALL]) as api:
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


def test_a_wrong_tool_call_is_text(start_server, tmp_path):
    with answering(start_server, tmp_path, ["<tool_call>", '{"name": "rm"}', "</tool_call>"]) as api:
        arguments = {"model": "chat", "messages": HELLO, "tools": [WEATHER], "temperature": 0}
        [choice] = api.chat.completions.create(**arguments).choices
        assert choice.finish_reason == "stop" and choice.message.tool_calls is None
        assert choice.message.content == '<tool_call>{"name": "rm"}</tool_call>'
        assert choice.error["code"] == "invalid_tool_call" and "rm" in choice.error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_can_be_demanded(start_server, tmp_path, choice):
    with answering(start_server, tmp_path, ["No."]) as api:
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
