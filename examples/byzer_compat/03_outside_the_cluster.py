"""A program beside the models (如何连接来自 Ray 集群外部的模型): it knows the name of a deployment and nothing else.

Changed: the last call is made on `llm_client`, which the README defines, rather than on `llm`, which it does not.
"""

import ray
from byzerllm.utils.client import ByzerLLM

## connect the ray cluster by the empty worker we started before
## this code should be run once in your program
ray.init(address="auto", namespace="default", ignore_reinit_error=True)

## new a ByzerLLM instance

llm_client = ByzerLLM()
llm_client.setup_template("llama2_chat", "auto")

v = llm_client.chat_oai(
    model="llama2_chat",
    conversations=[
        {
            "role": "user",
            "content": "hello",
        }
    ],
)

print(v[0].output)
