"""Meta, templates and default parameters (模型元信息, 对话模板, LLM 默认参数, QWen).

Changed: the path of the model is that of the variable MODEL; the deployment, which the README takes for granted; the
question of the last chat is English, and its answer short.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend, Templates

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()
llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/Qwen-72B-Chat"),
    pretrained_model_type="custom/auto",
    udf_name="chat",
    infer_params={},
)

print(llm.get_meta(model="chat"))

llm.setup_template("chat", Templates.qwen())

llm.setup_extra_generation_params("chat", {"generation.stop_token_ids": [7]})

t = llm.chat_oai(
    model="chat",
    conversations=[{"role": "user", "content": "Say hello."}],
    llm_config={"temperature": 0, "max_length": 8},
)
print(t)

llm.setup_template("chat", "auto")

t = llm.chat_oai(
    model="chat",
    conversations=[{"role": "user", "content": "Say hello."}],
    llm_config={"temperature": 0, "max_length": 8},
)
print(t[0].output)
