"""Function calling (函数调用): two tools and four questions, the last one for none of them; then a format of one's own.

Changed: the path of the model is that of the variable MODEL; imports and names that the README leaves out; `llm` for
its `lm`; values are printed.
"""

import datetime
import os
from collections.abc import Callable
from typing import Annotated, Any, List

import ray
from byzerllm.utils import function_calling_format
from byzerllm.utils.client import ByzerLLM, InferBackend, Templates
from dateutil.relativedelta import relativedelta

ray.init(address="auto", namespace="default")
llm = ByzerLLM()

model_location = os.environ.get("MODEL", "/home/byzerllm/models/Qwen-72B-Chat")
chat_model_name = "chat"

llm.setup_gpus_per_worker(8).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
llm.deploy(
    model_path=model_location,
    pretrained_model_type="custom/auto",
    udf_name=chat_model_name,
    infer_params={},
)

llm.setup_default_model_name("chat")
# from 0.1.24
# llm.setup_auto("chat")
meta = llm.get_meta()
llm.setup_max_model_length("chat", meta.get("max_model_len", 32000))
llm.setup_template("chat", Templates.qwen())


def compute_date_range(
    count: Annotated[int, "时间跨度，数值类型"],
    unit: Annotated[str, "时间单位，字符串类型", {"enum": ["day", "week", "month", "year"]}],
) -> List[str]:
    """
    计算日期范围

    Args:
        count: 时间跨度，数值类型
        unit: 时间单位，字符串类型，可选值为 day,week,month,year
    """
    now = datetime.datetime.now()
    now_str = now.strftime("%Y-%m-%d %H:%M:%S")
    if unit == "day":
        return [(now - relativedelta(days=count)).strftime("%Y-%m-%d %H:%M:%S"), now_str]
    elif unit == "week":
        return [(now - relativedelta(weeks=count)).strftime("%Y-%m-%d %H:%M:%S"), now_str]
    elif unit == "month":
        return [(now - relativedelta(months=count)).strftime("%Y-%m-%d %H:%M:%S"), now_str]
    elif unit == "year":
        return [(now - relativedelta(years=count)).strftime("%Y-%m-%d %H:%M:%S"), now_str]
    return ["", ""]


def compute_now() -> str:
    """
    计算当前时间
    """
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")


for question in ("计算当前时间", "最近三个月趋势", "最近三天"):
    t = llm.chat_oai(
        [{"content": question, "role": "user"}],
        tools=[compute_date_range, compute_now],
        execute_tool=True,
    )
    print(question, t[0].values, t[0].metadata["reason"])

t = llm.chat_oai(
    [{"content": "你吃饭了么？", "role": "user"}],
    tools=[compute_date_range, compute_now],
    execute_tool=True,
)

if t[0].values:
    print(t[0].values[0])
else:
    print(t[0].response.output)


def custom_function_calling_format(
    prompt: str, tools: List[Callable[..., Any]], tool_choice: Callable[..., Any]
) -> str:
    return function_calling_format(prompt, tools, tool_choice)


llm.setup_function_calling_format_func("chat", custom_function_calling_format)

# A tool that must be called always is.
t = llm.chat_oai([{"content": "计算当前时间", "role": "user"}], tool_choice=compute_now, execute_tool=True)
print("tool_choice", t[0].values)
