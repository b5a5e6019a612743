"""Quick start (快速入门): four GPUs, `InferBackend.transformers` in lower case, the template `auto`.

Changed: the path of the model is that of the variable MODEL.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend

ray.init(address="auto", namespace="default", ignore_reinit_error=True)

llm = ByzerLLM()

llm.setup_gpus_per_worker(4).setup_num_workers(1)
llm.setup_infer_backend(InferBackend.transformers)

llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/openbuddy-llama2-13b64k-v15"),
    pretrained_model_type="custom/llama2",
    udf_name="llama2_chat",
    infer_params={},
)

llm_client = ByzerLLM()
llm_client.setup_template("llama2_chat", "auto")

v = llm.chat_oai(
    model="llama2_chat",
    conversations=[
        {
            "role": "user",
            "content": "hello",
        }
    ],
)

print(v[0].output)
