"""The async methods in real event loops: inside this process, and against a server."""

import asyncio
import os
import threading
import time

import pytest
from conftest import PATIENCE, run_program

from byzerllm.errors import DeadlineExceededError, InvalidRequestError, NotFoundError, TooLargeError
from byzerllm.utils.client import ByzerLLM, EventName

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0, "max_length": 4}
ENDLESS = {"temperature": 0, "max_length": 50_000}


def threads():
    """How many threads of the operating system this process has."""
    return len(os.listdir("/proc/self/task"))


async def until(true):
    """Waits for a state that is reached by itself."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture(params=["here", "server"])
def place(request):
    """Deployments in this process, then on a server that it finds."""
    if request.param == "server":
        request.getfixturevalue("start_server")()
    return request.param


@pytest.fixture
def chat(place, checkpoint):
    """A client whose default model answers at once."""
    client = ByzerLLM().setup_default_model_name("chat")
    client.deploy(checkpoint, udf_name="chat")
    yield client
    client.undeploy("chat", force=True)


@pytest.fixture
def long(place, endless):
    """A client whose default model never ends."""
    client = ByzerLLM().setup_default_model_name("long")
    client.deploy(endless, udf_name="long")
    yield client
    client.undeploy("long", force=True)


def active(client):
    return client._endpoint.status("long")["active"]


def test_an_async_chat_is_the_same_chat(chat):
    config = {"temperature": 1, "gen.seed": 3, "max_length": 12, "gen.n": 2, "logprobs": True}
    expected = chat.chat_oai(HELLO, llm_config=config)
    answers = asyncio.run(ByzerLLM().async_chat_oai(HELLO, model="chat", llm_config=config))
    assert [answer.output for answer in answers] == [answer.output for answer in expected]
    assert answers[0].input == expected[0].input
    for answer, other in zip(answers, expected, strict=True):
        assert answer.metadata.keys() == other.metadata.keys()
        assert answer.metadata["prob"] == other.metadata["prob"]
        assert 0 < answer.metadata["first_token_time"] <= answer.metadata["time_cost"]


def test_a_thousand_chats_wait_without_a_thread_each(chat):
    expected = chat.chat_oai(HELLO, llm_config=GREEDY)[0].output

    async def ask():
        fresh = ByzerLLM().setup_default_model_name("chat")
        most = 0

        async def watch():
            nonlocal most
            while True:
                most = max(most, threads())
                await asyncio.sleep(0.005)

        watching = asyncio.ensure_future(watch())
        answers = await asyncio.gather(*(fresh.async_chat_oai(HELLO, llm_config=GREEDY) for _ in range(1000)))
        watching.cancel()
        return {answer.output for [answer] in answers}, most

    before = threads()
    outputs, most = asyncio.run(ask())
    assert outputs == {expected}
    # The one thread of the first look for a server, and a few of the executor's own.
    assert most <= before + 8


def test_cancelling_a_task_stops_the_work(long):
    async def ask():
        tasks = [asyncio.ensure_future(long.async_chat_oai(HELLO, llm_config=ENDLESS)) for _ in range(3)]
        await until(lambda: active(long) == 3)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        await until(lambda: active(long) == 2)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(tasks[1]), 0.05)
        assert active(long) == 2
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(tasks[1], 0.05)
        await until(lambda: active(long) == 1)
        # The last one is ended by the loop's end.

    asyncio.run(ask())
    asyncio.run(until(lambda: active(long) == 0))


def test_the_event_loop_goes_on_meanwhile(long):
    async def ask():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        config = {**ENDLESS, "timeout_s": 0.5}
        with pytest.raises(DeadlineExceededError):
            await long.async_chat_oai(HELLO, llm_config=config)
        chatted, turns = turns, 0
        with pytest.raises(DeadlineExceededError):
            async for _ in long.async_stream_chat_oai(HELLO, llm_config=config):
                pass
        counting.cancel()
        return chatted, turns

    # A blocked loop takes one turn; a free one thousands within half a second.
    assert min(asyncio.run(ask())) > 100


def test_an_async_stream_equals_the_whole_answer(chat):
    config = {"temperature": 1, "gen.seed": 5, "max_length": 40}
    whole = chat.chat_oai(HELLO, llm_config=config)[0]
    blocking = [text for text, _ in chat.stream_chat_oai(HELLO, llm_config=config)]

    async def read(**arguments):
        return [item async for item in chat.async_stream_chat_oai(HELLO, llm_config=config, **arguments)]

    items = asyncio.run(read())
    assert [text for text, _ in items] == blocking and items[-1].text == whole.output
    meta = items[-1].meta
    assert meta.generated_tokens_count == whole.metadata["generated_tokens_count"]
    assert meta.finish_reason == whole.metadata["finish_reason"]
    assert 0 < meta.first_token_time <= meta.extra_info["time_cost"]
    deltas = asyncio.run(read(delta_mode=True))
    assert "".join(text for text, _ in deltas) == whole.output


def test_leaving_an_async_stream_stops_the_work(long):
    async def leave(how):
        stream = long.async_stream_chat_oai(HELLO, llm_config=ENDLESS)
        await stream.__anext__()
        assert active(long) == 1
        if how == "close":
            await stream.aclose()
        else:

            async def read():
                async for _ in stream:
                    pass

            task = asyncio.ensure_future(read())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: active(long) == 0)

    for how in ("close", "cancel"):
        asyncio.run(leave(how))


def test_a_hundred_async_streams_at_once(chat):
    config = {"temperature": 0, "max_length": 12}
    expected = chat.chat_oai(HELLO, llm_config=config)[0].output

    async def read():
        return [text async for text, _ in chat.async_stream_chat_oai(HELLO, llm_config=config)][-1]

    async def all_of_them():
        return await asyncio.gather(*(read() for _ in range(100)))

    assert set(asyncio.run(all_of_them())) == {expected}


def test_errors_have_the_same_class(chat):
    async def ask():
        with pytest.raises(NotFoundError, match="nobody"):
            await chat.async_chat_oai(HELLO, model="nobody")
        with pytest.raises(TooLargeError, match="256"):
            await chat.async_chat_oai("word " * 500)
        with pytest.raises(InvalidRequestError) as caught:
            await chat.async_chat_oai(HELLO, llm_config={"top_p": 2})
        assert caught.value.param == "top_p"
        with pytest.raises(InvalidRequestError):
            await chat.async_chat_oai(HELLO, llm_config={"seed": 1 << 70})
        with pytest.raises(NotFoundError):
            async for _ in chat.async_stream_chat_oai(HELLO, model="nobody"):
                pass

    asyncio.run(ask())


def test_the_clients_own_limits_hold_for_async_chats(chat):
    chat.setup_max_input_length("chat", 3)
    with pytest.raises(TooLargeError, match="max_input_length 3"):
        asyncio.run(chat.async_chat_oai(HELLO))
    chat.setup_max_input_length("chat", 200).setup_max_model_length("chat", 20)
    [answer] = asyncio.run(chat.async_chat_oai(HELLO, llm_config={"temperature": 0}))
    assert answer.metadata["input_tokens_count"] + answer.metadata["generated_tokens_count"] <= 20


def test_every_event_loop_gets_its_own_answers(chat):
    expected = chat.chat_oai(HELLO, llm_config=GREEDY)[0].output
    outputs = []

    def loop():
        async def ask():
            return await asyncio.gather(*(chat.async_chat_oai(HELLO, llm_config=GREEDY) for _ in range(20)))

        outputs.extend(answer.output for [answer] in asyncio.run(ask()))

    running = [threading.Thread(target=loop) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(PATIENCE)
    assert outputs == [expected] * 80


def test_event_loops_leave_nothing_open(chat):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    async def ask():
        await chat.async_chat_oai(HELLO, llm_config=GREEDY)

    asyncio.run(ask())
    before = descriptors()
    for _ in range(20):
        asyncio.run(ask())
    assert descriptors() <= before + 4


def test_callbacks_may_be_coroutines(chat):
    async def after(client, model, results):
        await asyncio.sleep(0)
        results[0]["predict"] = results[0]["predict"].upper() + "!"
        return False, results

    expected = chat.chat_oai(HELLO, llm_config=GREEDY)[0].output
    chat.add_event_callback(EventName.AFTER_CALL_MODEL, after)
    [answer] = asyncio.run(chat.async_chat_oai(HELLO, llm_config=GREEDY))
    assert answer.output == expected.upper() + "!"


def test_a_program_ends_with_work_in_flight(endless):
    program = f"""
import asyncio
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM()
llm.deploy({endless!r}, udf_name="long")

async def main():
    global kept
    config = {{"temperature": 0, "max_length": 50_000}}
    kept = [asyncio.ensure_future(llm.async_chat_oai("hello", model="long", llm_config=config)) for _ in range(5)]
    stream = llm.async_stream_chat_oai("hello", model="long", llm_config=config)
    kept.append(stream)
    await stream.__anext__()
    print("leaving")

asyncio.run(main())
"""
    done = run_program(program)
    assert (done.returncode, done.stdout.split()) == (0, ["leaving"]), done.stderr


def test_ctrl_c_ends_an_event_loop(endless):
    program = f"""
import asyncio, os, signal, threading
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM()
llm.deploy({endless!r}, udf_name="long")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
asyncio.run(llm.async_chat_oai("hello", model="long", llm_config={{"temperature": 0, "max_length": 50_000}}))
"""
    done = run_program(program)
    assert done.returncode == -2 and "KeyboardInterrupt" in done.stderr
