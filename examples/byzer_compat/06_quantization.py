"""Quantization (量化): `{"quatization": "4"}` with transformers, `{"backend.quantization": "AWQ"}` with vLLM.

Changed: the paths of the models are those of the variables MODEL and AWQ_MODEL; a chat with each, which the README leaves
out.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend

ray.init(address="auto", namespace="default", ignore_reinit_error=True)

llm = ByzerLLM()
model_location = os.environ.get("MODEL", "/home/byzerllm/models/baichuan2-13b-chat")

llm.setup_gpus_per_worker(2).setup_num_workers(1).setup_infer_backend(InferBackend.Transformers)
llm.deploy(
    model_path=model_location,
    pretrained_model_type="custom/baichuan2",
    udf_name="baichuan2_13_chat",
    infer_params={"quatization": "4"},
)

llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
llm.deploy(
    model_path=os.environ.get("AWQ_MODEL", "/home/winubuntu/models/Yi-6B-Chat-4bits"),
    pretrained_model_type="custom/auto",
    udf_name="chat",
    infer_params={"backend.quantization": "AWQ"},
)

for name in ("baichuan2_13_chat", "chat"):
    print(llm.chat_oai(model=name, conversations=[{"role": "user", "content": "hello"}])[0].output)
