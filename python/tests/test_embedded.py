"""Deployments inside this process, through the native module, on a tiny checkpoint."""

import itertools
import os
import threading

import pytest
from conftest import CHECKPOINTS, run_program, until

from byzerllm.errors import (
    CancelledError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
)
from byzerllm.utils.client import ByzerLLM, InferBackend, Templates

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0, "max_length": 8}


def test_deploy_chat_undeploy(llm, checkpoint):
    assert not llm.is_model_exist("chat")
    llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.transformers)
    meta = llm.deploy(
        model_path=checkpoint, pretrained_model_type="custom/auto", udf_name="chat", infer_params={}
    )
    assert meta == llm.get_meta("chat")
    assert meta["architectures"] == ["Qwen2ForCausalLM"] and meta["max_model_len"] == 256
    assert meta["support_chat_template"] and meta["support_stream"] and meta["backend"] == "transformers"
    assert llm.is_model_exist("chat")
    llm.setup_template("chat", "auto")
    [response] = llm.chat_oai(HELLO, model="chat", llm_config=GREEDY)
    assert isinstance(response.output, str)
    metadata = response.metadata
    assert metadata["request_id"] and metadata["finish_reason"] in ("stop", "length")
    rendered = llm.apply_chat_template("chat", HELLO)
    assert rendered == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert metadata["input_tokens_count"] == len(llm.tokenize("chat", rendered)[0].output[0])
    assert 0 < metadata["generated_tokens_count"] <= 8
    assert 0 < metadata["first_token_time"] <= metadata["time_cost"] and metadata["speed"] > 0
    llm.undeploy("chat")
    assert not llm.is_model_exist("chat")
    with pytest.raises(NotFoundError):
        llm.chat_oai(HELLO, model="chat")


def test_two_clients_share_a_deployment(llm, checkpoint):
    llm.deploy(checkpoint, "custom/qwen", "shared", {})
    other = ByzerLLM().setup_default_model_name("shared")
    assert other.is_model_exist("shared")
    mine = llm.chat_oai(HELLO, model="shared", llm_config=GREEDY)[0].output
    assert other.chat_oai(HELLO, llm_config=GREEDY)[0].output == mine
    other.undeploy("shared")
    assert not llm.is_model_exist("shared")


def test_a_stream_equals_the_whole_answer(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    config = {"temperature": 1.0, "gen.seed": 5, "max_length": 40}
    whole = llm.chat_oai(HELLO, model="chat", llm_config=config)[0]
    items = list(llm.stream_chat_oai(HELLO, model="chat", llm_config=config))
    assert items[-1].text == whole.output
    texts = [text for text, _ in items]
    assert all(after.startswith(before) and after != before for before, after in itertools.pairwise(texts))
    meta = items[-1].meta
    assert meta.generated_tokens_count == whole.metadata["generated_tokens_count"]
    assert meta.input_tokens_count == whole.metadata["input_tokens_count"]
    assert meta.finish_reason == whole.metadata["finish_reason"]
    deltas = llm.stream_chat_oai(HELLO, model="chat", delta_mode=True, llm_config=config)
    assert "".join(text for text, _ in deltas) == whole.output


def test_a_model_without_template_chats(llm, untemplated):
    llm.deploy(untemplated, udf_name="chat")
    assert not llm.get_meta("chat")["support_chat_template"]
    [response] = llm.chat_oai(HELLO, model="chat", llm_config=GREEDY)
    assert response.input["instruction"] == "User:hello\nAssistant:"
    tokens = llm.tokenize("chat", "User:hello\nAssistant:")[0].output[0]
    assert response.metadata["input_tokens_count"] - len(tokens) in (0, 1)


def test_a_template_of_the_client_sends_the_same_tokens(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    own = llm.chat_oai(HELLO, model="chat", llm_config=GREEDY)[0]
    template = Templates.qwen()
    template.role_mapping["assistant_role"] = "<|im_start|>assistant\n"
    template.role_mapping["user_role_func"] = lambda t, v: f"{t}{v}<|im_end|>"
    template.generation_config.clear()
    ours = llm.setup_template("chat", template).chat_oai(HELLO, model="chat", llm_config=GREEDY)[0]
    assert ours.input["instruction"] == llm.apply_chat_template("chat", HELLO)
    assert (ours.output, ours.metadata["input_tokens_count"]) == (
        own.output,
        own.metadata["input_tokens_count"],
    )


def test_deployment_defaults_and_limits(llm, checkpoint):
    llm.deploy(
        checkpoint, udf_name="chat", infer_params={"generation.max_tokens": "3", "backend.max_model_len": 64}
    )
    assert llm.get_meta("chat")["max_model_len"] == 64
    response = llm.chat_oai(HELLO, model="chat", llm_config={"gen.temperature": 0})[0]
    assert response.metadata["generated_tokens_count"] <= 3
    with pytest.raises(TooLargeError, match="64"):
        llm.chat_oai("word " * 100, model="chat")


def test_several_choices_and_log_probabilities(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    config = {"gen.n": 3, "gen.logprobs": True, "gen.seed": 1, "max_length": 6}
    answers = llm.chat_oai(HELLO, model="chat", llm_config=config)
    assert len(answers) == 3
    assert all(answer.metadata["prob"] < 0 for answer in answers)
    assert len({answer.output for answer in answers}) > 1


def test_errors_of_the_engine(llm, tmp_path, checkpoint):
    with pytest.raises(NotFoundError, match="nobody"):
        llm.chat_oai(HELLO, model="nobody", role_mapping=llm.default_role_mapping)
    with pytest.raises((InvalidRequestError, NotFoundError), match="missing"):
        llm.deploy(str(tmp_path / "missing"), udf_name="chat")
    assert not llm.is_model_exist("chat") or llm._endpoint.status("chat")["state"] == "failed"
    llm.deploy(checkpoint, udf_name="ok")
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat_oai(HELLO, model="ok", llm_config={"top_p": 2})
    assert caught.value.param == "top_p" and caught.value.code == "invalid_request"


def test_a_timeout_ends_the_work(llm, endless):
    llm.deploy(endless, udf_name="long")
    config = {"temperature": 0, "max_length": 50_000, "timeout_s": 0.3}
    with pytest.raises(DeadlineExceededError):
        llm.chat_oai(HELLO, model="long", llm_config=config)
    until(lambda: llm._endpoint.status("long")["active"] == 0)


def test_closing_a_stream_frees_the_engine(llm, endless):
    llm.deploy(endless, udf_name="long")
    stream = llm.stream_chat_oai(HELLO, model="long", llm_config={"temperature": 0, "max_length": 50_000})
    next(stream)
    assert llm._endpoint.status("long")["active"] == 1
    stream.close()
    until(lambda: llm._endpoint.status("long")["active"] == 0)


def test_cancelling_from_another_thread(llm, endless):
    llm.deploy(endless, udf_name="long")
    request = {
        "model": "long",
        "input": {"kind": "text", "value": "hello"},
        "sampling": {"temperature": 0.0, "max_tokens": 50_000},
    }
    call = llm._endpoint.chat(request)
    next(call)
    threading.Timer(0.1, call.cancel).start()
    with pytest.raises(CancelledError):
        for _ in call:
            pass
    assert list(call) == []
    with pytest.raises(InvalidRequestError, match="already"):
        call.result()


def test_a_cancel_between_two_reads_is_told_once(llm, endless):
    llm.deploy(endless, udf_name="long")
    request = {
        "model": "long",
        "input": {"kind": "text", "value": "hello"},
        "sampling": {"temperature": 0.0, "max_tokens": 50_000},
    }
    call = llm._endpoint.chat(request)
    next(call)
    call.cancel()
    with pytest.raises(CancelledError):
        next(call)
    assert list(call) == []


def test_python_runs_while_the_engine_works(llm, endless):
    llm.deploy(endless, udf_name="long")
    done = threading.Event()
    counted = 0

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with pytest.raises(DeadlineExceededError):
            llm.chat_oai(
                HELLO, model="long", llm_config={"temperature": 0, "max_length": 50_000, "timeout_s": 0.5}
            )
    finally:
        done.set()
        thread.join()
    # With the GIL held the counter would stand still; a free one passes this number within milliseconds.
    assert counted > 10_000


def test_many_threads_chat_at_once(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    expected = llm.chat_oai(HELLO, model="chat", llm_config=GREEDY)[0].output
    answers = []

    def chat():
        answers.append(ByzerLLM().chat_oai(HELLO, model="chat", llm_config=GREEDY)[0].output)

    threads = [threading.Thread(target=chat) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 16


def test_requests_must_be_plain(llm):
    endpoint = llm._endpoint
    assert endpoint.embedded and endpoint.url is None
    for bad in (
        {"model": object()},
        {"model": float("nan")},
        {1: 2},
        {"model": 1 << 70},
        "text",
        {"model": "\ud800"},
        {"model": "x", "takeover": 1},
        {"model": "x", "takeover": "sometimes"},
        {"model": "x", "no_cache": "perhaps"},
    ):
        with pytest.raises(InvalidRequestError):
            endpoint.chat(bad)
    nested = {}
    nested["again"] = nested
    with pytest.raises(InvalidRequestError, match="nested"):
        endpoint.chat(nested)
    with pytest.raises(InvalidRequestError, match="timeout"):
        endpoint.chat({"model": "x", "input": {"kind": "text", "value": "x"}}, -1.0)


PREFACE = """
import os, signal, sys, threading, time
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM().setup_default_model_name("long")
"""


def test_ctrl_c_interrupts(endless):
    program = f"""{PREFACE}
llm.deploy({endless!r}, udf_name="long")
config = {{"temperature": 0, "max_length": 50_000}}

def interrupt():
    time.sleep(0.3)
    global sent
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)

for stream in (False, True):
    threading.Thread(target=interrupt).start()
    try:
        if stream:
            for _ in llm.stream_chat_oai("hello", llm_config=config):
                pass
        else:
            llm.chat_oai("hello", llm_config=config)
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted" if time.monotonic() - sent < 10 else "late")
print(len(llm.chat_oai("hello", llm_config={{"temperature": 0, "max_length": 2}})))
"""
    done = run_program(program)
    assert done.stdout.split() == ["interrupted", "interrupted", "1"], done.stderr


def test_ctrl_c_ends_a_program(endless):
    program = f"""{PREFACE}
llm.deploy({endless!r}, udf_name="long")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
llm.chat_oai("hello", llm_config={{"temperature": 0, "max_length": 50_000}})
"""
    done = run_program(program)
    assert done.returncode == -2 and "KeyboardInterrupt" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_and_never_hangs(endless):
    program = f"""{PREFACE}
from byzerllm.errors import UnavailableError
llm.deploy({endless!r}, udf_name="long")
config = {{"temperature": 0, "max_length": 50_000}}
stream = llm.stream_chat_oai("hello", llm_config=config)
next(stream)
child = os.fork()
if child == 0:
    outcome = 1
    try:
        next(stream)
    except UnavailableError as error:
        outcome = 0 if "ask again" in str(error) else 2
    try:
        llm.chat_oai("hello")
        outcome = 3
    except UnavailableError as error:
        outcome = outcome or (0 if "spawn" in str(error) else 6)
    stream.close()
    del stream
    fresh = ByzerLLM()
    if fresh.is_model_exist("long"):
        outcome = 4
    fresh.deploy({endless!r}, udf_name="mine")
    if len(fresh.chat_oai("hello", model="mine", llm_config={{"temperature": 0, "max_length": 2}})) != 1:
        outcome = 5
    sys.exit(outcome)
_, status = os.waitpid(child, 0)
next(stream)
stream.close()
print(os.waitstatus_to_exitcode(status))
"""
    done = run_program(program)
    assert done.stdout.split() == ["0"], done.stderr


def test_deployments_end_with_the_process(checkpoint):
    program = f"""
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM()
assert not llm.is_model_exist("chat")
llm.deploy({checkpoint!r}, "custom/auto", "chat", {{}})
llm.deploy({checkpoint!r}, "custom/auto", "other", {{}})
print(llm.is_model_exist("chat"))
"""
    for _ in range(2):
        done = run_program(program)
        assert done.stdout.split() == ["True"], done.stderr
        assert done.stderr.count("byzerllm serve") == 1


def test_ggufs_too(llm):
    llm.deploy(str(CHECKPOINTS / "gguf" / "llama-q8_0.gguf"), "custom/llama2", "chat", {"compute": "exact"})
    [response] = llm.chat("chat", "hello", {"max_length": 4})
    assert 0 < response.metadata["generated_tokens_count"] <= 4
