"""Embedding models (嵌入模型): BGE on this machine, Baichuan's as a vendor's.

Changed: the path of the model is that of the variable MODEL; `v[0].output` for the README's `v.output`; another address of the vendor
is that of BAICHUAN_URL.
"""

import os

os.environ["RAY_DEDUP_LOGS"] = "0"

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend, LLMRequest, LLMResponse

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()

llm.setup_gpus_per_worker(0.4).setup_num_workers(2).setup_infer_backend(InferBackend.Transformers)
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/bge-large-zh"),
    pretrained_model_type="custom/bge",
    udf_name="emb",
    infer_params={},
)

t: list[LLMResponse] = llm.emb("emb", LLMRequest(instruction="wow"))
print(t[0].output)

llm = ByzerLLM(verbose=True)

llm.setup_num_workers(1).setup_gpus_per_worker(0)

chat_name = "baichuan_emb"
if llm.is_model_exist(chat_name):
    llm.undeploy(udf_name=chat_name)

url = os.environ.get("BAICHUAN_URL")
address = {"saas.base_url": url} if url else {}
llm.deploy(
    model_path="",
    pretrained_model_type="saas/baichuan",
    udf_name=chat_name,
    infer_params={"saas.api_key": "xxxxxxx", "saas.model": "Baichuan-Text-Embedding", **address},
)
llm.setup_default_emb_model_name(chat_name)

v: list[LLMResponse] = llm.emb(None, LLMRequest(instruction="你好"))
print(v[0].output)
