"""A program of Byzer-LLM's README on a real model. Needs the directory that `BYZERLLM_TEST_MODELS` names."""

import os
from pathlib import Path

import pytest

from byzerllm.utils.client import ByzerLLM, InferBackend

MODEL = Path(os.environ.get("BYZERLLM_TEST_MODELS", "")) / "smollm2.gguf"

pytestmark = pytest.mark.skipif(
    not os.environ.get("BYZERLLM_TEST_MODELS"), reason="BYZERLLM_TEST_MODELS names no directory"
)


def test_the_quick_start(llm):
    llm.setup_gpus_per_worker(4).setup_num_workers(1)
    llm.setup_infer_backend(InferBackend.transformers)
    llm.deploy(
        model_path=str(MODEL),
        pretrained_model_type="custom/llama2",
        udf_name="llama2_chat",
        infer_params={"compute": "exact", "temperature": 0},
    )
    llm_client = ByzerLLM()
    llm_client.setup_template("llama2_chat", "auto")
    conversation = [{"role": "user", "content": "What is the capital of France?"}]
    v = llm.chat_oai(model="llama2_chat", conversations=conversation, llm_config={"temperature": 0})
    assert v[0].output == "The capital of France is Paris."
    assert v[0].metadata["input_tokens_count"] == 37 and v[0].metadata["generated_tokens_count"] == 8
    *_, last = llm.stream_chat_oai(
        model="llama2_chat", conversations=conversation, llm_config={"temperature": 0}
    )
    assert last + "\n" == "The capital of France is Paris.\n"
