"""The prompts that ask a model for a function's code, in Byzer-LLM's form: Chinese text around JSON."""

import inspect
from collections.abc import Callable
from typing import Any

from byzerllm.formats import schema_text
from byzerllm.schema.signature import name_of, serialize_function_to_json

_EXAMPLE_FUNCTION = """{
  "name": "next_weekday",
  "description": "返回给定日期之后的第一个工作日",
  "parameters": {
    "type": "object",
    "properties": {
      "day": {
        "type": "datetime",
        "description": "日期"
      }
    }
  }
}"""
_EXAMPLE_SCHEMA = (
    '{"title": "Day", "type": "object", "properties": {"day": {"type": "string", "description": "yyyy-MM-dd"}}, '
    '"required": ["day"]}'
)
_EXAMPLE_CODE = """from datetime import datetime, timedelta

def next_weekday(day: datetime):
    day += timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return {"day": day.strftime("%Y-%m-%d")}"""


def function_impl_format(prompt: str, func: Callable[..., Any] | str, cls: Any) -> str:
    """The question together with the function that is to be written for it and the schema of its result.

    Example:
        >>> print(function_impl_format("去年三月到七月", calculate_time_range, TimeRange))
    """
    return f"""请先阅读下面的例子，它说明怎样实现一个 Python 函数。

函数：

```json
{_EXAMPLE_FUNCTION}
```

返回值的 JSON Schema：

```json
{_EXAMPLE_SCHEMA}
```

实现：

```python
{_EXAMPLE_CODE}
```

现在请实现下面这个函数：

```json
{serialize_function_to_json(func)}
```

函数的返回值必须是一个字典，并且符合下面的 JSON Schema：

```json
{schema_text(cls)}
```
{_purpose(func)}
用户的问题是：{prompt}

要求：

1. 函数名和参数必须与上面给出的完全一致{_first_line(func)}。
2. 只使用 Python 标准库，并且写出需要的 import。
3. 与当前时间有关的内容，要在函数里计算，不要写成固定的值。
4. 只输出一个完整的 Python 代码块，不要调用这个函数，也不要展示它的结果。
"""


def sys_function_impl_format(prompt: str, func: Callable[..., Any] | str, cls: Any) -> str:
    """`function_impl_format` for a conversation whose system message explains FUNCTION_IMPL."""
    return f"""请运用 FUNCTION_IMPL 能力来解决用户的问题。

输入：

```json
{serialize_function_to_json(func)}
```
{_purpose(func)}
用户的问题是：{prompt}

JSON Schema：

```json
{schema_text(cls)}
```

输出：
"""


def _first_line(func: Callable[..., Any] | str) -> str:
    """How the code has to begin, where that is known."""
    if isinstance(func, str):
        return ""
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(func).parameters.values()
    ]
    return f"，即以 `def {name_of(func)}{inspect.Signature(plain)}:` 开头"


def _purpose(func: Callable[..., Any] | str) -> str:
    documented = "" if isinstance(func, str) else (func.__doc__ or "").strip()
    return (
        f"\n函数 {name_of(func)} 的作用：{documented}\n" if documented and not isinstance(func, str) else ""
    )
