"""Processes that fork: what works in the child, what says so at once, and that the parent never minds."""

import os

import pytest
from conftest import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PREFACE = """
import asyncio, multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from byzerllm.errors import UnavailableError
from byzerllm.utils.client import ByzerLLM

CONFIG = {"temperature": 0, "max_length": 4}
ENDLESS = {"temperature": 0, "max_length": 50_000}

def told(call):
    # Whether a call fails as it should, and within a second.
    started = time.monotonic()
    try:
        call()
    except UnavailableError:
        return time.monotonic() - started < 1
    return False

def forked(work):
    # Runs work in a child, which must end by itself; the way of an interpreter's end, with its clean-up.
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = 0 if work() else 1
        finally:
            sys.stdout.flush()
            sys.exit(status)
    deadline = time.monotonic() + 20
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, 9)
            return "hangs"
        time.sleep(0.01)
"""


def outcome(program):
    done = run_program(PREFACE + program)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_method_of_an_inherited_client_raises_within_a_second(checkpoint):
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
before = llm.chat_oai("hello", llm_config=CONFIG)[0].output

def child():
    return all([
        told(lambda: llm.chat_oai("hello", llm_config=CONFIG)),
        told(lambda: llm.chat("chat", "hello", CONFIG)),
        told(lambda: list(llm.stream_chat_oai("hello", llm_config=CONFIG))),
        told(lambda: asyncio.run(llm.async_chat_oai("hello", llm_config=CONFIG))),
        told(lambda: llm.get_meta()),
        told(lambda: llm.is_model_exist("chat")),
        told(lambda: llm.tokenize("chat", "hello")),
        told(lambda: llm.apply_chat_template("chat", [{{"role": "user", "content": "x"}}])),
        told(lambda: llm.deploy({checkpoint!r}, udf_name="more")),
        told(lambda: llm.undeploy("chat")),
    ])

print(forked(child), llm.chat_oai("hello", llm_config=CONFIG)[0].output == before)
"""
    assert outcome(program) == ["0", "True"]


def test_a_new_client_in_the_child_starts_an_engine_of_its_own(checkpoint):
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
before = llm.chat_oai("hello", llm_config=CONFIG)[0].output

def child():
    own = ByzerLLM().setup_default_model_name("chat")
    assert not own.is_model_exist("chat")
    own.deploy({checkpoint!r}, udf_name="chat")
    again = asyncio.run(own.async_chat_oai("hello", llm_config=CONFIG))[0].output
    return own.chat_oai("hello", llm_config=CONFIG)[0].output == before == again

print(forked(child), forked(child), llm.chat_oai("hello", llm_config=CONFIG)[0].output == before)
"""
    assert outcome(program) == ["0", "0", "True"]


def test_a_fork_while_the_engine_is_busy(endless):
    program = f"""
llm = ByzerLLM().setup_default_model_name("long")
llm.deploy({endless!r}, udf_name="long")
stop = threading.Event()

def work():
    while not stop.is_set():
        llm.chat_oai("hello", llm_config={{"temperature": 0, "max_length": 30}})

busy = [threading.Thread(target=work) for _ in range(4)]
for thread in busy:
    thread.start()
stream = llm.stream_chat_oai("hello", llm_config=ENDLESS)
next(stream)

def child():
    right = told(lambda: next(stream)) and told(lambda: llm.chat_oai("hello", llm_config=CONFIG))
    stream.close()
    return right

print(*[forked(child) for _ in range(10)])
next(stream)
stream.close()
stop.set()
for thread in busy:
    thread.join()
print(len(llm.chat_oai("hello", llm_config=CONFIG)))
"""
    assert outcome(program) == ["0"] * 10 + ["1"]


def test_a_fork_inside_an_event_loop(endless):
    program = f"""
llm = ByzerLLM().setup_default_model_name("long")
llm.deploy({endless!r}, udf_name="long")

async def main():
    waiting = asyncio.ensure_future(llm.async_chat_oai("hello", llm_config=ENDLESS))
    stream = llm.async_stream_chat_oai("hello", llm_config=ENDLESS)
    await stream.__anext__()
    child = os.fork()
    if child == 0:
        # The inherited loop is nobody's here; the child ends without it.
        right = told(lambda: llm.chat_oai("hello", llm_config=CONFIG))
        os._exit(0 if right else 1)
    _, status = os.waitpid(child, 0)
    await stream.__anext__()
    await stream.aclose()
    waiting.cancel()
    print(os.waitstatus_to_exitcode(status))
    print(len(await llm.async_chat_oai("hello", llm_config=CONFIG)))

asyncio.run(main())
"""
    assert outcome(program) == ["0", "1"]


def test_a_child_talks_to_the_server_while_the_parent_streams(start_server, checkpoint, endless):
    start_server()
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
llm.deploy({endless!r}, udf_name="long")
before = llm.chat_oai("hello", llm_config=CONFIG)[0].output
asyncio.run(llm.async_chat_oai("hello", llm_config=CONFIG))
stream = llm.stream_chat_oai("hello", model="long", llm_config=ENDLESS)
next(stream)

def child():
    again = asyncio.run(llm.async_chat_oai("hello", llm_config=CONFIG))[0].output
    *_, last = llm.stream_chat_oai("hello", llm_config=CONFIG)
    return told(lambda: next(stream)) and again == last.text == before == (
        llm.chat_oai("hello", llm_config=CONFIG)[0].output
    )

print(*[forked(child) for _ in range(3)])
next(stream)
print(llm._endpoint.status("long")["active"], llm.chat_oai("hello", llm_config=CONFIG)[0].output == before)
"""
    assert outcome(program) == ["0", "0", "0", "1", "True"]


def test_a_pool_of_forked_workers_shares_a_server(start_server, checkpoint):
    start_server()
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
before = llm.chat_oai("hello", llm_config=CONFIG)[0].output

def ask(number):
    return llm.chat_oai("hello", llm_config=CONFIG)[0].output, os.getpid()

with multiprocessing.get_context("fork").Pool(3) as pool:
    answers = pool.map(ask, range(30), chunksize=1)
print(set(text for text, _ in answers) == {{before}}, os.getpid() in {{process for _, process in answers}})
print(ask(0)[0] == before)
"""
    assert outcome(program) == ["True", "False", "True"]


def test_a_pool_of_forked_workers_is_told_about_the_engine(checkpoint):
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")

def ask(number):
    return llm.chat_oai("hello", llm_config=CONFIG)[0].output

# The error travels back through the pool with its class.
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(told(lambda: pool.map(ask, range(4), chunksize=1)))
print(len(ask(0)) > 0)
"""
    assert outcome(program) == ["True", "True"]
