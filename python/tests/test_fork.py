"""Processes that fork: what works in the child, what says so at once, and that the parent never minds."""

import os

import pytest
from conftest import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PREFACE = """
import asyncio, importlib.machinery, multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from byzerllm.errors import UnavailableError
from byzerllm.utils.client import ByzerLLM

CONFIG = {"temperature": 0, "max_length": 4}
ENDLESS = {"temperature": 0, "max_length": 50_000}

def told(call):
    # Whether a call fails as it should, and not by waiting.
    started = time.monotonic()
    try:
        call()
    except UnavailableError:
        return time.monotonic() - started < 10
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


BUSY = """
stop = threading.Event()

def work():
    while not stop.is_set():
        llm.chat_oai("hello", llm_config=CONFIG)

def work_in_a_loop():
    async def ask():
        while not stop.is_set():
            await asyncio.gather(*(llm.async_chat_oai("hello", llm_config=CONFIG) for _ in range(10)))

    asyncio.run(ask())

busy = [threading.Thread(target=target) for target in (work, work, work_in_a_loop, work_in_a_loop)]
for thread in busy:
    thread.start()
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
{BUSY}
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


def test_a_fork_while_another_thread_starts_its_first_event_loop(checkpoint):
    # The first async call imports what it needs, and an import that a fork interrupts would never end in the child.
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
started = threading.Event()

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "byzerllm.event_loop":
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module

            def slow(module):
                started.set()
                time.sleep(0.3)
                load(module)

            spec.loader.exec_module = slow
            return spec

sys.meta_path.insert(0, Slow())
first = threading.Thread(target=lambda: asyncio.run(llm.async_chat_oai("hello", llm_config=CONFIG)))
first.start()

def child():
    own = ByzerLLM().setup_default_model_name("chat")
    own.deploy({checkpoint!r}, udf_name="chat")
    return len(asyncio.run(own.async_chat_oai("hello", llm_config=CONFIG))) == 1

started.wait()
print(forked(child))
first.join()
"""
    assert outcome(program) == ["0"]


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
{BUSY}
print(*[forked(child) for _ in range(5)])
stop.set()
for thread in busy:
    thread.join()
next(stream)
print(llm._endpoint.status("long")["active"], llm.chat_oai("hello", llm_config=CONFIG)[0].output == before)
"""
    assert outcome(program) == ["0"] * 8 + ["1", "True"]


def test_a_pool_of_forked_workers_shares_a_server(start_server, checkpoint):
    start_server()
    program = f"""
llm = ByzerLLM().setup_default_model_name("chat")
llm.deploy({checkpoint!r}, udf_name="chat")
before = llm.chat_oai("hello", llm_config=CONFIG)[0].output

def ask(number):
    return llm.chat_oai("hello", llm_config=CONFIG)[0].output, os.getpid()

stream = llm.stream_chat_oai("hello", llm_config={{"temperature": 0, "max_length": 60}})
first = next(stream)
with multiprocessing.get_context("fork").Pool(3) as pool:
    answers = pool.map(ask, range(30), chunksize=1)
print(set(text for text, _ in answers) == {{before}}, os.getpid() in {{process for _, process in answers}})
*_, last = stream
print(ask(0)[0] == before, len(last.text) > len(first.text))
"""
    assert outcome(program) == ["True", "False", "True", "True"]


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
