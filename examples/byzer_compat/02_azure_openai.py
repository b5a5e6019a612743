"""Quick start, a vendor's model (快速入门, SaaS): Azure OpenAI, ten workers, no GPU, no `model_path`.

Changed: the colons and commas that the README's dictionary lacks; the address is that of the variable AZURE_URL.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend

ray.init(address="auto", namespace="default", ignore_reinit_error=True)

llm = ByzerLLM()

llm.setup_gpus_per_worker(0).setup_num_workers(10)
llm.setup_infer_backend(InferBackend.transformers)

llm.deploy(
    pretrained_model_type="saas/azure_openai",
    udf_name="azure_openai",
    infer_params={
        "saas.api_type": "azure",
        "saas.api_key": "xxx",
        "saas.api_base": os.environ.get("AZURE_URL", "https://xxx.openai.azure.com"),
        "saas.api_version": "2023-07-01-preview",
        "saas.deployment_id": "xxxxxx",
    },
)

llm_client = ByzerLLM()
llm_client.setup_template("azure_openai", "auto")

v = llm.chat_oai(
    model="azure_openai",
    conversations=[
        {
            "role": "user",
            "content": "hello",
        }
    ],
)

print(v[0].output)
