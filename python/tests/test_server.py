"""A real `byzerllm serve` process, found and used by Python programs."""

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
from conftest import PATIENCE, run_program, until

from byzerllm.errors import (
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from byzerllm.utils.client import ByzerLLM

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0, "max_length": 8}


def test_a_running_server_is_found_and_shared(start_server, checkpoint):
    server = start_server()
    first, second = ByzerLLM(), ByzerLLM()
    first.deploy(checkpoint, "custom/qwen", "chat", {})
    assert not first._endpoint.embedded and first._endpoint.url == server.url
    assert second.is_model_exist("chat")
    assert second.get_meta("chat") == first.get_meta("chat")
    mine = first.chat_oai(HELLO, model="chat", llm_config=GREEDY)[0]
    assert second.chat_oai(HELLO, model="chat", llm_config=GREEDY)[0].output == mine.output
    assert 0 < mine.metadata["first_token_time"] <= mine.metadata["time_cost"]
    second.undeploy("chat")
    second.undeploy("chat")
    assert not first.is_model_exist("chat")


def test_streams_over_http(start_server, checkpoint):
    start_server()
    llm = ByzerLLM().setup_default_model_name("chat")
    llm.deploy(checkpoint, udf_name="chat")
    config = {"temperature": 1, "gen.seed": 3, "max_length": 40}
    whole = llm.chat_oai(HELLO, llm_config=config)[0]
    items = list(llm.stream_chat_oai(HELLO, llm_config=config))
    assert items[-1].text == whole.output
    assert items[-1].meta.generated_tokens_count == whole.metadata["generated_tokens_count"]
    assert llm.apply_chat_template("chat", HELLO).endswith("<|im_start|>assistant\n")
    tokens = llm.tokenize("chat", llm.apply_chat_template("chat", HELLO))[0].output[0]
    assert len(tokens) == whole.metadata["input_tokens_count"]


def test_two_programs_with_a_server(start_server, checkpoint):
    start_server()
    deploy = f"""
from byzerllm.utils.client import ByzerLLM
ByzerLLM().deploy({checkpoint!r}, "custom/auto", "chat", {{}})
"""
    chat = """
from byzerllm.utils.client import ByzerLLM
print(len(ByzerLLM().chat_oai("hello", model="chat", llm_config={"max_length": 2})))
"""
    deployed = run_program(deploy)
    assert deployed.returncode == 0 and "byzerllm serve" not in deployed.stderr, deployed.stderr
    answered = run_program(chat)
    assert answered.stdout.split() == ["1"], answered.stderr


def test_two_programs_without_a_server(checkpoint):
    deploy = f"""
from byzerllm.utils.client import ByzerLLM
ByzerLLM().deploy({checkpoint!r}, "custom/auto", "chat", {{}})
"""
    deployed = run_program(deploy)
    assert deployed.returncode == 0 and "byzerllm serve" in deployed.stderr, deployed.stderr
    chat = "from byzerllm.utils.client import ByzerLLM\nprint(ByzerLLM().is_model_exist('chat'))"
    assert run_program(chat).stdout.split() == ["False"]


def test_deployments_come_back(start_server, checkpoint, tmp_path):
    state = tmp_path / "state"
    server = start_server(state)
    ByzerLLM().deploy(checkpoint, "custom/qwen", "chat", {"max_tokens": 3})
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    start_server(state)
    llm = ByzerLLM()
    assert llm.is_model_exist("chat")
    until(lambda: llm._endpoint.status("chat")["state"] == "ready")
    response = llm.chat_oai(HELLO, model="chat")[0]
    assert 0 < response.metadata["generated_tokens_count"] <= 3


def test_a_state_directory_has_one_owner(start_server, tmp_path):
    state = tmp_path / "state"
    server = start_server(state)
    second = subprocess.run(
        [sys.executable, "-m", "byzerllm", "serve", "--port", "0", "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode == 1
    assert str(server.process.pid) in second.stderr


def test_the_order_in_which_a_place_is_found(
    start_server, monkeypatch, checkpoint, runtime_directory, tmp_path
):
    assert ByzerLLM()._endpoint.embedded
    running = start_server()
    assert ByzerLLM()._endpoint.url == running.url
    assert ByzerLLM("not a url")._endpoint.url == running.url
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(elsewhere))
    assert ByzerLLM()._endpoint.embedded
    monkeypatch.setenv("BYZERLLM_URL", running.url)
    named = ByzerLLM()
    assert named._endpoint.url == running.url
    with pytest.raises(NotFoundError):
        named.chat_oai(HELLO, model="chat")
    assert ByzerLLM("http://127.0.0.1:9")._endpoint.url == "http://127.0.0.1:9"


def test_the_environment_must_name_a_server(monkeypatch):
    monkeypatch.setenv("BYZERLLM_URL", "nonsense")
    with pytest.raises(InvalidRequestError):
        ByzerLLM().is_model_exist("chat")


def test_a_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    llm = ByzerLLM(url=f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match=str(port)):
        llm.is_model_exist("chat")
    with pytest.raises(UnavailableError):
        llm.chat_oai(HELLO, model="chat")


def test_a_dead_servers_record_is_no_server(start_server):
    server = start_server()
    server.stop(signal.SIGKILL)
    assert ByzerLLM()._endpoint.embedded


def test_errors_keep_their_class(start_server, checkpoint):
    start_server()
    llm = ByzerLLM().setup_default_model_name("chat")
    with pytest.raises(NotFoundError):
        llm.chat_oai(HELLO)
    with pytest.raises(ValueError):
        llm.deploy("/nowhere/at/all", udf_name="chat")
    llm.deploy(checkpoint, udf_name="chat")
    with pytest.raises(TooLargeError, match="256"):
        llm.chat_oai("word " * 500)
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat_oai(HELLO, llm_config={"temperature": -1})
    assert caught.value.param == "temperature"


def test_the_record_is_private_and_goes_with_the_server(start_server, runtime_directory):
    server = start_server()
    [record] = list(runtime_directory.rglob("server-*.json"))
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    assert server.stop() == 0
    assert not record.exists()


def test_ctrl_c_ends_a_server_within_seconds(start_server, endless):
    server = start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long")
    assert server.stop(signal.SIGINT) == 0


def test_ctrl_c_interrupts_a_remote_chat(start_server, endless):
    start_server()
    llm = ByzerLLM()
    llm.deploy(endless, udf_name="long")
    program = """
import os, signal, threading, time
from byzerllm.utils.client import ByzerLLM
llm = ByzerLLM()
def interrupt():
    global sent
    time.sleep(0.3)
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    llm.chat_oai("hello", model="long", llm_config={"temperature": 0, "max_length": 50_000})
except KeyboardInterrupt:
    print("interrupted" if time.monotonic() - sent < 10 else "late")
"""
    done = run_program(program)
    assert done.stdout.split() == ["interrupted"], done.stderr
    # The server notices that its client left, and the engine is free again.
    until(lambda: llm._endpoint.status("long")["active"] == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_talks_to_the_server(start_server, checkpoint):
    start_server()
    program = f"""
import os
from byzerllm.utils.client import ByzerLLM
config = {{"temperature": 0, "max_length": 4}}
llm = ByzerLLM()
llm.deploy({checkpoint!r}, udf_name="chat")
expected = llm.chat_oai("hello", model="chat", llm_config=config)[0].output
child = os.fork()
if child == 0:
    os._exit(0 if llm.chat_oai("hello", model="chat", llm_config=config)[0].output == expected else 1)
_, status = os.waitpid(child, 0)
again = llm.chat_oai("hello", model="chat", llm_config=config)[0].output
print(os.waitstatus_to_exitcode(status), again == expected)
"""
    done = run_program(program)
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_the_command_line(start_server, checkpoint):
    server = start_server()

    def byzerllm(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "byzerllm", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    deployed = byzerllm("deploy", "--name", "chat", "--model", checkpoint, "--url", server.url)
    assert deployed.returncode == 0, deployed.stderr
    listed = byzerllm("list", "--json", "--url", server.url)
    assert '"chat"' in listed.stdout
    assert ByzerLLM().is_model_exist("chat")
    assert byzerllm("undeploy", "chat", "--url", server.url).returncode == 0
    assert not ByzerLLM().is_model_exist("chat")
    assert byzerllm("no-such-command").returncode == 2
    assert byzerllm("--help").stdout.startswith("Run large language models")


def test_the_console_script_is_installed():
    from importlib.metadata import entry_points

    [script] = entry_points(group="console_scripts", name="byzerllm")
    assert script.value == "byzerllm._command_line:main"
