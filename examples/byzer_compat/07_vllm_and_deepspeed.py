"""vLLM with streams (支持 vLLM, 流式对话) and DeepSpeed with `chat` (支持 DeepSpeed).

Changed: the path of the models is that of the variable MODEL; the README's doubled quotes; its last value is printed.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend, LLMRequest
from byzerllm.utils.retrieval import ByzerRetrieval  # noqa: F401 - as in the README

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()

llm.setup_gpus_per_worker(2)
llm.setup_num_workers(1)
llm.setup_infer_backend(InferBackend.VLLM)

chat_model_name = "zephyr_chat"
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/openbuddy-zephyr-7b-v14.1"),
    pretrained_model_type="custom/auto",
    udf_name=chat_model_name,
    infer_params={},
)

v = llm.chat_oai(
    model="zephyr_chat",
    conversations=[
        {
            "role": "user",
            "content": "hello",
        }
    ],
)
print(v[0].output)

llm.setup_default_model_name(chat_model_name)

t = llm.stream_chat_oai(conversations=[{"role": "user", "content": "Hello, how are you?"}])

for line in t:
    print(line + "\n")

llm.setup_gpus_per_worker(4)
llm.setup_num_workers(1)
llm.setup_infer_backend(InferBackend.DeepSpeed)

llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/openbuddy-llama-13b-v5-fp16"),
    pretrained_model_type="custom/auto",
    udf_name="llama_chat",
    infer_params={},
)

print(llm.chat("llama_chat", LLMRequest(instruction="hello world"))[0].output)
