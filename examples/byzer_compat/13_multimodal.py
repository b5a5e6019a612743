"""Pictures (多模态, StableDiffusion): a chat about a picture, continued, and three pictures of a cat.

Changed: the paths of models and picture are those of the variables MODEL and PICTURE.
"""

import base64
import json
import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend

ray.init(address="auto", namespace="default")

llm = ByzerLLM()
chat_model_name = "qwen_vl_chat"

llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.Transformers)
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/Qwen-VL-Chat"),
    pretrained_model_type="custom/qwen_vl_chat",
    udf_name=chat_model_name,
    infer_params={},
)

image_path = os.environ.get("PICTURE", "/home/byzerllm/projects/jupyter-workspace/1.jpg")
with open(image_path, "rb") as f:
    image_content = base64.b64encode(f.read()).decode("utf-8")

t = llm.chat_oai(
    conversations=[{"role": "user", "content": "这是什么"}],
    model=chat_model_name,
    llm_config={"image": image_content},
)

print(t[0].output)

history = json.loads(str(t[0].output))["history"]

t = llm.chat_oai(
    conversations=[*history, {"role": "user", "content": "能圈出狗么？"}],
    model=chat_model_name,
    llm_config={"image": image_content},
)
print(t[0].output)

llm.setup_gpus_per_worker(2).setup_num_workers(1).setup_infer_backend(InferBackend.Transformers)
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/stable-diffusion-v1-5"),
    pretrained_model_type="custom/stable_diffusion",
    udf_name="sd_chat",
    infer_params={},
)

t = llm.chat_oai(
    conversations=[{"role": "user", "content": "画一只猫"}],
    model="sd_chat",
    llm_config={"gen.batch_size": 3},
)

for index, res in enumerate(json.loads(str(t[0].output))):
    print(index, len(base64.b64decode(res["img64"])), "bytes")
