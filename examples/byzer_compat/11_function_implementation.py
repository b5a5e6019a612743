"""Functions written by the model (函数实现功能): every form of the README.

Changed: the path of the model is that of the variable MODEL; the deployment, which the README takes for granted;
`reason` for its `resason`; values are printed.
"""

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Optional, Union

import pydantic
import ray
from byzerllm.utils import serialize_function_to_json
from byzerllm.utils.client import (
    ByzerLLM,
    code_utils,  # noqa: F401 - as in the README
    message_utils,  # noqa: F401
)

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
chat_model_name = "chat"
llm = ByzerLLM()
llm.deploy(
    model_path=os.environ.get("MODEL", "/home/byzerllm/models/Qwen-72B-Chat"),
    pretrained_model_type="custom/auto",
    udf_name=chat_model_name,
    infer_params={},
)
llm.setup_default_model_name(chat_model_name)


class Time(pydantic.BaseModel):
    time: str = pydantic.Field(..., description="时间，时间格式为 yyyy-MM-dd")


class TimeRange(pydantic.BaseModel):
    """
    时间区间
    格式需要如下： yyyy-MM-dd
    """

    start: str = pydantic.Field(..., description="开始时间.时间格式为 yyyy-MM-dd")
    end: str = pydantic.Field(..., description="截止时间.时间格式为 yyyy-MM-dd")


@llm.impl()
def calculate_current_time() -> Time:
    """
    计算当前时间
    """
    pass


start = time.monotonic()
print(repr(calculate_current_time()))
print(f"first time cost: {time.monotonic() - start}")

start = time.monotonic()
calculate_current_time()
print(f"second time cost: {time.monotonic() - start}")

llm.clear_impl_cache()


@llm.impl(verbose=True)
def add_one_day(current_day: Annotated[datetime, "当前日期，类型是datatime.datetime"]) -> Time:
    """
    给传入的日期加一天，得到明天的时间
    """
    pass


print(repr(add_one_day(datetime(2024, 1, 28))))


@llm.impl(instruction="去年三月到七月")
def calculate_time_range() -> TimeRange:
    """
    计算时间区间，时间格式为 yyyy-MM-dd.
    """
    pass


print(repr(calculate_time_range()))


def calculate_time_range_again() -> TimeRange:
    """
    计算时间区间，时间格式为 yyyy-MM-dd.
    """
    pass


calculate_time_range_again.__name__ = "calculate_time_range"
print(repr(llm.impl(instruction="去年三月到七月")(calculate_time_range_again)()))


def plain_time_range():  # type: ignore[no-untyped-def]
    """
    计算时间区间，时间格式为 yyyy-MM-dd.
    """
    pass


plain_time_range.__name__ = "calculate_time_range"


def function_impl_format2(
    prompt: str, func: Optional[Union[Callable[..., Any], str]], cls: Union[Any, str]
) -> str:
    tool_choice_ser = serialize_function_to_json(func)  # type: ignore[arg-type]
    _cls = ""
    if isinstance(cls, str):
        _cls = cls
    else:
        _cls = cls.schema_json(ensure_ascii=False)

    msg = f"""生成一个python函数，给出详细的思考逻辑，对最后生成的函数不要进行示例说明。

生成的函数的名字以及参数需要满足如下约束：

```json
{tool_choice_ser}
```

生成的函数的返回值必须是 Json 格式。

下面是使用 OpenAPI 3.1. 规范描述了你需如何进行json格式的生成。

```json
{_cls}
```

根据用户的问题,{func.__doc__}。用户的问题是：{prompt}

请你实现这个函数。
"""

    return msg


llm.setup_impl_func_format_func(chat_model_name, function_impl_format2)

t = llm.chat_oai(
    [{"content": "去年三月到七月", "role": "user"}],
    impl_func=plain_time_range,
    impl_func_params={},
    response_class=TimeRange,
    execute_impl_func=True,
)
print(t[0].value)
print("reason:", t[0].metadata.get("reason", ""))
