"""What Byzer-LLM's words about deployments do here: GPUs, engines, workers, unknown keys, and what `get_meta` says."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import run_program, scripted

from byzerllm import notices
from byzerllm.errors import InvalidRequestError, OverloadedError, UnsupportedError
from byzerllm.utils.client import ByzerLLM, InferBackend

HELLO = [{"role": "user", "content": "hello"}]


def test_meta_is_what_the_readme_prints(llm, checkpoint):
    """The second example of the README, key for key and in its order; `engine` is new."""
    llm.setup_gpus_per_worker(2).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
    llm.deploy(checkpoint, "custom/auto", "chat", {})
    meta = llm.get_meta(model="chat")
    assert list(meta.items()) == [
        ("model_deploy_type", "proprietary"),
        ("backend", "ray/vllm"),
        ("support_stream", True),
        ("support_chat_template", True),
        ("max_model_len", 256),
        ("architectures", ["Qwen2ForCausalLM"]),
        ("engine", "byzerllm"),
    ]


@pytest.mark.parametrize(
    ("backend", "word"),
    [
        (InferBackend.Transformers, "transformers"),
        (InferBackend.transformers, "transformers"),
        (InferBackend.DeepSpeed, "ray/deepspeed"),
        (InferBackend.vllm, "ray/vllm"),
        (InferBackend.LLAMA_CPP, "llama_cpp"),
    ],
)
def test_every_backend_runs_on_our_engine_and_keeps_its_word(llm, checkpoint, backend, word):
    meta = llm.setup_infer_backend(backend).deploy(checkpoint, udf_name="chat")
    assert (meta["backend"], meta["engine"]) == (word, "byzerllm")
    llm.setup_template("chat", "auto")
    assert (
        llm.chat_oai(HELLO, model="chat", llm_config={"max_length": 2})[0].metadata["generated_tokens_count"]
        > 0
    )


def test_the_default_model_is_meant_where_none_is_named(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    assert llm.setup_default_model_name("chat").get_meta()["max_model_len"] == 256


def test_one_notice_tells_what_has_no_effect_and_the_list_keeps_it(llm, checkpoint, caplog, monkeypatch):
    monkeypatch.setattr(notices, "_said", set())
    llm.setup_gpus_per_worker(4).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
    with caplog.at_level(logging.WARNING, logger="byzerllm"):
        for _ in range(2):
            llm.deploy(checkpoint, "custom/auto", "chat", {"backend.use_cache": "true"})
    told = [record.message for record in caplog.records if "without effect" in record.message]
    assert len(told) == 1
    for words in ("backend.use_cache='true'", "num_gpus=4", "infer_backend='ray/vllm'"):
        assert words in told[0]
    [status] = llm._endpoint.list()
    assert status["spec"]["labels"]["without_effect"] == [
        "backend.use_cache='true'",
        "num_gpus=4",
        "infer_backend='ray/vllm'",
    ]
    llm.setup_reset()
    llm.deploy(checkpoint, udf_name="chat")
    assert "without_effect" not in llm._endpoint.list()[0]["spec"]["labels"]


def test_the_command_line_lists_it(start_server, checkpoint):
    server = start_server()
    ByzerLLM(url=server.url).setup_gpus_per_worker(0.4).deploy(checkpoint, udf_name="chat")
    command = [sys.executable, "-m", "byzerllm", "list", "--url", server.url]
    table = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "without effect here: num_gpus=0.4" in table.stderr and "chat" in table.stdout
    listed = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert listed["deployments"][0]["spec"]["labels"]["without_effect"] == ["num_gpus=0.4"]


def test_strict_refuses_what_has_no_effect(llm, checkpoint, monkeypatch):
    strict = ByzerLLM(strict=True)
    strict.setup_gpus_per_worker(1).setup_infer_backend(InferBackend.DeepSpeed)
    with pytest.raises(UnsupportedError, match=r"num_gpus=1.*infer_backend='ray/deepspeed'") as caught:
        strict.deploy(checkpoint, udf_name="chat")
    assert caught.value.param == "strict" and not llm.is_model_exist("chat")
    strict.setup_reset()
    strict.setup_gpus_per_worker(0).setup_num_workers(2).setup_worker_concurrency(2).deploy(
        checkpoint, udf_name="chat"
    )
    with pytest.raises(UnsupportedError, match="ray_address"):
        ByzerLLM(strict=True, ray_address="auto")
    with pytest.raises(UnsupportedError, match=r"gen\.use_beam_search"):
        strict.chat_oai(HELLO, model="chat", llm_config={"gen.use_beam_search": True})
    monkeypatch.setenv("BYZERLLM_STRICT", "true")
    assert ByzerLLM().strict and not ByzerLLM(strict=False).strict
    monkeypatch.setenv("BYZERLLM_STRICT", "perhaps")
    with pytest.raises(InvalidRequestError, match="BYZERLLM_STRICT"):
        ByzerLLM()


def settled(llm, name, active):
    """Waits until so many requests are in the deployment."""
    deadline = time.monotonic() + 60
    while llm._endpoint.status(name)["active"] != active and time.monotonic() < deadline:
        time.sleep(0.002)
    return llm._endpoint.status(name)["active"]


@pytest.mark.parametrize(
    ("workers", "slots", "backend", "admitted"),
    [
        (2, 2, None, 4),
        (3, None, None, 3),
        (None, 2, None, 2),
        (1, None, None, 1),
        (1, 3, InferBackend.VLLM, 3),
    ],
)
def test_workers_times_concurrency_are_admitted_and_no_more(llm, endless, workers, slots, backend, admitted):
    # An engine brings its own number of slots, so it comes first.
    if backend:
        llm.setup_infer_backend(backend)
    if workers:
        llm.setup_num_workers(workers)
    if slots:
        llm.setup_worker_concurrency(slots)
    # Nobody may wait, so that one more is told at once.
    llm.deploy(endless, udf_name="long", infer_params={"queue_limit": 0})
    config = {"temperature": 0, "max_length": 50_000, "timeout_s": 60}
    streams = [llm.stream_chat_oai(HELLO, model="long", llm_config=config) for _ in range(admitted)]
    for stream in streams:
        next(stream)
    assert llm._endpoint.status("long")["active"] == admitted
    with pytest.raises(OverloadedError):
        llm.chat_oai(HELLO, model="long", llm_config=config)
    streams[0].close()
    assert settled(llm, "long", admitted - 1) == admitted - 1
    assert llm.chat_oai(HELLO, model="long", llm_config={"max_length": 2})
    for stream in streams:
        stream.close()


def test_limits_of_engines_that_batch(llm, checkpoint):
    llm.setup_infer_backend(InferBackend.VLLM).setup_num_workers(2)
    llm.deploy(checkpoint, udf_name="chat")
    assert llm._endpoint.status("chat")["spec"]["limits"] == {"concurrency": 200, "queue_limit": 1000}
    llm.setup_reset()
    llm.setup("masterMaxConcurrency", 5).setup_num_workers(2).deploy(checkpoint, udf_name="chat")
    assert llm._endpoint.status("chat")["spec"]["limits"] == {"concurrency": 2, "queue_limit": 5}
    llm.setup_reset()
    llm.deploy(checkpoint, udf_name="chat")
    assert llm._endpoint.status("chat")["spec"]["limits"] == {}, "nobody asked for limits"


MODELS = os.environ.get("BYZERLLM_TEST_MODELS")


@pytest.mark.skipif(MODELS is None, reason="BYZERLLM_TEST_MODELS names no directory")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_weights_are_loaded_once_whatever_the_workers():
    model = Path(MODELS) / "smollm2.gguf"
    program = f"""
import re
from byzerllm.utils.client import ByzerLLM
def memory():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
llm = ByzerLLM().setup_num_workers({{workers}}).setup_worker_concurrency(2)
before = memory()
llm.deploy({str(model)!r}, udf_name="chat")
status = llm._endpoint.status("chat")
print(memory() - before, status["info"]["weight_bytes"], status["spec"]["limits"]["concurrency"])
"""
    one, eight = (run_program(program.format(workers=workers)).stdout.split() for workers in (1, 8))
    assert (one[2], eight[2]) == ("2", "16") and one[1] == eight[1]
    assert int(eight[0]) < int(one[0]) + int(one[1]) / 2, "not even half of the weights more"


def test_unknown_keys_name_the_nearest_or_are_dropped(llm, checkpoint, monkeypatch):
    with pytest.raises(InvalidRequestError, match=r"'backend\.max_model_len'") as caught:
        llm.deploy(checkpoint, udf_name="chat", infer_params={"backend.max_model_length": 64})
    assert caught.value.param == "backend.max_model_length"
    llm.deploy(checkpoint, udf_name="chat")
    unknown = {"max_length": 3, "gen.temprature": 0.5, "topk": 5}
    with pytest.raises(InvalidRequestError, match=r"gen\.temperature"):
        llm.chat_oai(HELLO, model="chat", llm_config=unknown)
    silent = ByzerLLM(ignore_unknown=True)
    silent.deploy(checkpoint, udf_name="chat", infer_params={"backend.max_model_length": 64, "max_tokens": 2})
    assert silent.get_meta("chat")["max_model_len"] == 256
    [answer] = silent.chat_oai(HELLO, model="chat", llm_config=unknown)
    assert 0 < answer.metadata["generated_tokens_count"] <= 3
    with pytest.raises(InvalidRequestError, match="max_length"):
        silent.chat_oai(HELLO, model="chat", llm_config={"max_length": "many"})
    monkeypatch.setenv("BYZERLLM_IGNORE_UNKNOWN", "1")
    assert ByzerLLM().chat_oai(HELLO, model="chat", llm_config=unknown)


def test_extra_generation_params_are_merged_and_used(llm, tmp_path):
    # Its pieces are the tokens from 300 on.
    model = scripted(tmp_path / "scripted", ["one ", "two ", "three ", "four"], "{{ messages[0].content }}")
    llm.deploy(model, udf_name="chat")
    whole = llm.chat_oai(HELLO, model="chat", llm_config={"temperature": 0})[0]
    assert whole.output == "one two three four"
    third = 302
    llm.setup_extra_generation_params(
        "chat", {"generation.stop_token_ids": [third], "generation.max_tokens": 9}
    )
    llm.setup_extra_generation_params("chat", {"generation.max_tokens": 8})
    assert llm.mapping_extra_generation_params["chat"] == {
        "generation.stop_token_ids": [third],
        "generation.max_tokens": 8,
    }
    cut = llm.chat_oai(HELLO, model="chat", llm_config={"temperature": 0})[0]
    assert cut.output.startswith("one two") and "four" not in cut.output
    assert cut.metadata["finish_reason"] == "stop" and cut.input["generation.stop_token_ids"] == [third]
    one = llm.chat_oai(HELLO, model="chat", llm_config={"temperature": 0, "gen.max_tokens": 1})[0]
    assert one.metadata["generated_tokens_count"] == 1, "llm_config wins, in whatever spelling"
