"""Vendors' models (SaaS 模型): Baichuan, Qianwen with a stream, OpenAI behind a proxy, Zhipu, Sparkdesk.

Changed: the commas that the README's dictionaries lack; each model is asked something, and its answer printed; the vendors'
addresses are those of variables, where they are set, so that simulated vendors can stand in for them.
"""

import os
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


def at(variable: str, name: str = "saas.base_url") -> dict[str, Any]:
    """The vendor's address, when a variable names another one."""
    return {name: os.environ[variable]} if variable in os.environ else {}


deploy(
    "baichuan_chat2",
    "saas/baichuan",
    {"saas.api_key": "xxxxxxx", "saas.model": "Baichuan2-Turbo", **at("BAICHUAN_URL")},
)
v = llm.chat_oai(model="baichuan_chat2", conversations=[{"role": "user", "content": "你好"}])
print(v[0].output)

deploy(
    "qianwen_chat",
    "saas/qianwen",
    {"saas.api_key": "xxxxxxx", "saas.model": "qwen-turbo", **at("QIANWEN_URL")},
)

## here you can use `stream_chat_oai`
stream = llm.stream_chat_oai(
    model="qianwen_chat",
    conversations=[{"role": "user", "content": "你好，你是谁"}],
    llm_config={"gen.incremental_output": False},
)

for t in stream:
    print(t[0], flush=True)

deploy(
    "openai_chat",
    "saas/official_openai",
    {
        "saas.api_key": "xxxx",
        "saas.model": "gpt-3.5-turbo-1106",
        "saas.base_url": os.environ.get("OPENAI_URL", "http://my.test.server.example.com:8083"),
        "saas.proxies": os.environ.get("OPENAI_PROXY", "http://my.test.proxy.example.com"),
        "saas.local_address": "0.0.0.0",
    },
)
v = llm.chat_oai(model="openai_chat", conversations=[{"role": "user", "content": "你好"}])
print(v[0].output)

deploy("zhipu_chat", "saas/zhipu", {"saas.api_key": "xxxx", "saas.model": "glm-4", **at("ZHIPU_URL")})
v = llm.chat_oai(model="zhipu_chat", conversations=[{"role": "user", "content": "你好"}])
print(v[0].output)

deploy(
    "sparkdesk_saas",
    "saas/sparkdesk",
    {
        "saas.appid": "xxxxxxx",
        "saas.api_key": "xxxxxxx",
        "saas.api_secret": "xxxxxxx",
        "saas.gpt_url": os.environ.get("SPARK_URL", "wss://spark-api.xf-yun.com/v3.1/chat"),
        "saas.domain": "generalv3",
    },
)
v = llm.chat_oai(model="sparkdesk_saas", conversations=[{"role": "user", "content": "your prompt content"}])
print(v[0].output)
