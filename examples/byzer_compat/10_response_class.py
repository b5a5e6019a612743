"""Response classes (响应时使用 Pydantic 类): at once, after a chat, and with a format of one's own.

Changed: the path of the model is that of the variable MODEL; the deployment, which the README takes for granted; values
are printed.
"""

import os
from typing import Any

import pydantic
import ray
from byzerllm.utils import response_class_format, response_class_format_after_chat  # noqa: F401
from byzerllm.utils.client import ByzerLLM

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/Qwen-72B-Chat"),
    pretrained_model_type="custom/auto",
    udf_name="chat",
    infer_params={},
)
llm.setup_default_model_name("chat")


class Story(pydantic.BaseModel):
    """
    故事
    """

    title: str = pydantic.Field(description="故事的标题")
    body: str = pydantic.Field(description="故事主体")


t = llm.chat_oai(
    [
        {"content": """请给我讲个故事，分成两个部分，一个标题，一个故事主体""", "role": "user"},
    ],
    response_class=Story,
)

print(repr(t[0].value))

t = llm.chat_oai(
    [
        {"content": """请给我讲个故事，分成两个部分，一个标题，一个故事主体""", "role": "user"},
    ],
    response_class=Story,
    response_after_chat=True,
)

print(repr(t[0].value))


def custom_response_class_format(prompt: str, cls: Any) -> str:
    return f"{prompt}\n\nJSON: {cls.schema_json(ensure_ascii=False)}"


llm.setup_response_class_format_func("chat", custom_response_class_format)

t = llm.chat_oai([{"content": "请给我讲个故事", "role": "user"}], response_class=Story)
print(repr(t[0].value))
