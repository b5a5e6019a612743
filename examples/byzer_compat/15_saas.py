"""Vendors' models (SaaS 模型): Baichuan, Qianwen with a stream, OpenAI behind a proxy, Zhipu, Sparkdesk.

Changed: the commas that the README's dictionaries lack; each model is asked something.
"""

from typing import Any

import ray
from byzerllm.utils.client import ByzerLLM

ray.init(address="auto", namespace="default", ignore_reinit_error=True)

llm = ByzerLLM(verbose=True)

llm.setup_num_workers(1).setup_gpus_per_worker(0)


def deploy(chat_name: str, kind: str, infer_params: dict[str, Any]) -> None:
    if llm.is_model_exist(chat_name):
        llm.undeploy(udf_name=chat_name)
    llm.deploy(model_path="", pretrained_model_type=kind, udf_name=chat_name, infer_params=infer_params)


deploy("baichuan_chat2", "saas/baichuan", {"saas.api_key": "xxxxxxx", "saas.model": "Baichuan2-Turbo"})
llm.chat_oai(model="baichuan_chat2", conversations=[{"role": "user", "content": "你好"}])

deploy("qianwen_chat", "saas/qianwen", {"saas.api_key": "xxxxxxx", "saas.model": "qwen-turbo"})

## here you can use `stream_chat_oai`
v = llm.stream_chat_oai(
    model="qianwen_chat",
    conversations=[{"role": "user", "content": "你好，你是谁"}],
    llm_config={"gen.incremental_output": False},
)

for t in v:
    print(t, flush=True)

deploy(
    "openai_chat",
    "saas/official_openai",
    {
        "saas.api_key": "xxxx",
        "saas.model": "gpt-3.5-turbo-1106",
        "saas.base_url": "http://my.test.server.example.com:8083",
        "saas.proxies": "http://my.test.proxy.example.com",
        "saas.local_address": "0.0.0.0",
    },
)
llm.chat_oai(model="openai_chat", conversations=[{"role": "user", "content": "你好"}])

deploy("zhipu_chat", "saas/zhipu", {"saas.api_key": "xxxx", "saas.model": "glm-4"})
llm.chat_oai(model="zhipu_chat", conversations=[{"role": "user", "content": "你好"}])

deploy(
    "sparkdesk_saas",
    "saas/sparkdesk",
    {
        "saas.appid": "xxxxxxx",
        "saas.api_key": "xxxxxxx",
        "saas.api_secret": "xxxxxxx",
        "saas.gpt_url": "wss://spark-api.xf-yun.com/v3.1/chat",
        "saas.domain": "generalv3",
    },
)
llm.chat_oai(model="sparkdesk_saas", conversations=[{"role": "user", "content": "your prompt content"}])
