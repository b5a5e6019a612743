"""The server through the official `openai` client."""

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
