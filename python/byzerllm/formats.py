"""The prompts that describe tools and classes to a model, in Byzer-LLM's form: Chinese text around JSON.

They are what a model without a format of its own is asked with, and what `setup_*_format_func` replaces.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from byzerllm.schema.signature import serialize_function_to_json

FUNCTION_CALLING_SCHEMA = """{
  "$defs": {
    "FunctionCall": {
      "description": "函数名称和函数参数列表",
      "properties": {
        "name": {
          "title": "Name",
          "type": "string"
        },
        "arguments": {
          "additionalProperties": true,
          "title": "Arguments",
          "type": "object"
        }
      },
      "required": [
        "name",
        "arguments"
      ],
      "title": "FunctionCall",
      "type": "object"
    },
    "FunctionCallWrapper": {
      "description": "一次函数调用",
      "properties": {
        "function": {
          "$ref": "#/$defs/FunctionCall"
        }
      },
      "required": [
        "function"
      ],
      "title": "FunctionCallWrapper",
      "type": "object"
    }
  },
  "description": "函数列表",
  "properties": {
    "tool_calls": {
      "items": {
        "$ref": "#/$defs/FunctionCallWrapper"
      },
      "title": "Tool Calls",
      "type": "array"
    },
    "id": {
      "title": "Id",
      "type": "string"
    },
    "type": {
      "default": "function",
      "title": "Type",
      "type": "string"
    }
  },
  "required": [
    "tool_calls",
    "id"
  ],
  "title": "FunctionCallList",
  "type": "object"
}"""
"""The JSON Schema of `FunctionCallList`."""

Tool = Callable[..., Any] | str


class BaseAbility(Enum):
    """What the default system message explains."""

    RESPONSE_WITH_CLASS = "RESPONSE_WITH_CLASS"
    FUNCTION_CALLING = "FUNCTION_CALLING"
    FUNCTION_IMPL = "FUNCTION_IMPL"
    OTHERS = "OTHERS"


_EVERY_ABILITY = (BaseAbility.RESPONSE_WITH_CLASS, BaseAbility.FUNCTION_CALLING, BaseAbility.FUNCTION_IMPL)

_CALL_EXAMPLE = """{
  "name": "compute_date_range",
  "description": "计算日期范围",
  "parameters": {
    "type": "object",
    "properties": {
      "count": {
        "type": "int",
        "description": "时间跨度"
      },
      "unit": {
        "enum": ["day", "week", "month", "year"],
        "type": "str",
        "description": "时间单位",
        "default": "day"
      }
    }
  }
}"""

_CALL_EXAMPLE_OUTPUT = """{
  "id": "call_1",
  "type": "function",
  "tool_calls": [
    {
      "function": {
        "name": "compute_date_range",
        "arguments": {
          "count": 2,
          "unit": "week"
        }
      }
    }
  ]
}"""

_CLASS_EXAMPLE_QUESTION = "你好，我叫小明。"
_CLASS_EXAMPLE = (
    '{"title": "Person", "type": "object", "properties": {"name": {"type": "string", "description": "姓名"}}, '
    '"required": ["name"]}'
)
_CLASS_EXAMPLE_OUTPUT = '{"name": "小明"}'

_NESTED_EXAMPLE = (
    '{"title": "Order", "type": "object", "properties": {"buyer": {"$ref": "#/$defs/Person"}, "amount": '
    '{"type": "integer", "description": "数量"}}, "required": ["buyer", "amount"], "$defs": {"Person": {"type": '
    '"object", "properties": {"name": {"type": "string", "description": "姓名"}}, "required": ["name"]}}}'
)
_NESTED_EXAMPLE_OUTPUT = '{"buyer": {"name": "小明"}, "amount": 2}'

_CODE_EXAMPLE = """{
  "name": "add_one",
  "description": "返回比输入大一的数",
  "parameters": {
    "type": "object",
    "properties": {
      "number": {
        "type": "int",
        "description": "输入"
      }
    }
  }
}"""
_CODE_EXAMPLE_SCHEMA = '{"title": "Result", "type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}'
_CODE_EXAMPLE_OUTPUT = """def add_one(number: int):
    return {"value": number + 1}"""


def schema_text(cls: Any) -> str:
    """The JSON Schema of a class, a type or a schema, as text."""
    if isinstance(cls, str):
        return cls
    if isinstance(cls, dict):
        return json.dumps(cls, ensure_ascii=False)
    from byzerllm.schema.shape import Shape

    return json.dumps(Shape.of(cls).described, ensure_ascii=False)


def function_calling_format(
    prompt: str, tools: Sequence[Tool] | None = None, tool_choice: Tool | None = None
) -> str:
    """The question together with the functions that may answer it. Without functions, the question alone."""
    tools = tools or []
    if not tools and tool_choice is None:
        return prompt
    return f"""You have access to the following functions:

```json
{_listed(tools)}
```

请根据用户的问题，从这些函数中选择一个或多个，并给出调用它们所需的参数。你的回答必须是一段 JSON，并且符合下面的 JSON Schema：

```json
{FUNCTION_CALLING_SCHEMA}
```

举个例子。假设有这样一个函数：

```json
{_CALL_EXAMPLE}
```

当用户说“过去两周”时，正确的回答是：

```json
{_CALL_EXAMPLE_OUTPUT}
```
{_forced(tool_choice)}
用户的问题是：

{prompt}

请只选择上面列出的函数，只输出 JSON。如果没有任何一个函数能够解决用户的问题，请如实告诉用户，不要输出 JSON。
"""


def response_class_format(prompt: str, cls: Any) -> str:
    """The question together with the schema of its answer."""
    return f"""请先阅读下面的例子，它说明怎样按照 JSON Schema 回答问题。

问题：

{_CLASS_EXAMPLE_QUESTION}

JSON Schema：

```json
{_CLASS_EXAMPLE}
```

回答：

```json
{_CLASS_EXAMPLE_OUTPUT}
```

现在请回答用户的问题：

{prompt}

你的回答必须是一段 JSON，并且符合下面的 JSON Schema：

```json
{schema_text(cls)}
```

请根据问题自己给出各个字段的内容，只输出 JSON，不要重复 JSON Schema，也不要做任何解释。
"""


def enforced_class_format(prompt: str, cls: Any) -> str:
    """`response_class_format` where the schema is enforced while decoding: shorter, without an example, and in English
    where the question is not Chinese or Japanese. Small models do better so.
    """
    if any("\u3040" <= character <= "\u9fff" for character in prompt):
        return f"""{prompt}

请用一段 JSON 回答，它必须符合下面的 JSON Schema：

```json
{schema_text(cls)}
```

字段的内容由你根据问题来写。只输出 JSON，不要重复 JSON Schema。
"""
    return f"""Answer with JSON that fits this JSON Schema:

```json
{schema_text(cls)}
```

{prompt}
"""


def response_class_format_after_chat(cls: Any) -> str:
    """The request to put the answer before into a class."""
    return f"""请把你上面的回答整理成一段 JSON，并且符合下面的 JSON Schema：

```json
{schema_text(cls)}
```

只输出 JSON，不要重复 JSON Schema，也不要做任何解释。
"""


def sys_function_calling_format(
    prompt: str, tools: Sequence[Tool] | None = None, tool_choice: Tool | None = None
) -> str:
    """`function_calling_format` for a conversation whose system message explains FUNCTION_CALLING."""
    tools = tools or []
    if not tools and tool_choice is None:
        return prompt
    return f"""请运用 FUNCTION_CALLING 能力来解决用户的问题。

可以使用的函数：

```json
{_listed(tools)}
```
{_forced(tool_choice)}
输入：

{prompt}

JSON Schema：

```json
{FUNCTION_CALLING_SCHEMA}
```

输出：
"""


def sys_response_class_format(prompt: str, cls: Any) -> str:
    """`response_class_format` for a conversation whose system message explains RESPONSE_WITH_CLASS."""
    return f"""请运用 RESPONSE_WITH_CLASS 能力来解决用户的问题。

输入：

{prompt}

JSON Schema：

```json
{schema_text(cls)}
```

输出：
"""


def base_ability_format(
    prompt: str | None = None, base_abilities: Sequence[BaseAbility] = _EVERY_ABILITY
) -> str:
    """The system message that explains abilities by name, for `enable_default_sys_message=True`.

    `prompt` comes after it, when there is one.
    """
    explained = [_ABILITIES[ability] for ability in _EVERY_ABILITY if ability in base_abilities]
    introduction = (
        "以下是你具备的能力。用户会提到它们的名字，请在回答时按照对应的说明去做。\n\n"
        "JSON 是一种数据格式；JSON Schema 用 JSON 描述另一段 JSON 应该有哪些字段、字段是什么类型。"
    )
    parts = [introduction, *explained, f"{_title(BaseAbility.OTHERS)}\n"]
    if prompt:
        parts.append(prompt)
    return "\n\n".join(parts)


def _listed(tools: Sequence[Tool]) -> str:
    return "\n".join(serialize_function_to_json(tool) for tool in tools)


def _forced(tool_choice: Tool | None) -> str:
    if tool_choice is None:
        return ""
    return f"""
你必须使用下面这个函数：

```json
{serialize_function_to_json(tool_choice)}
```
"""


def _title(ability: BaseAbility) -> str:
    return f"==================={ability.value}==================="


_ABILITIES = {
    BaseAbility.RESPONSE_WITH_CLASS: f"""{_title(BaseAbility.RESPONSE_WITH_CLASS)}

根据用户的输入和 JSON Schema，给出符合它的 JSON。例如：

输入：

{_CLASS_EXAMPLE_QUESTION}

JSON Schema：

```json
{_CLASS_EXAMPLE}
```

输出：

```json
{_CLASS_EXAMPLE_OUTPUT}
```

字段里也可以再有字段：

输入：

小明买了两本书。

JSON Schema：

```json
{_NESTED_EXAMPLE}
```

输出：

```json
{_NESTED_EXAMPLE_OUTPUT}
```""",
    BaseAbility.FUNCTION_CALLING: f"""{_title(BaseAbility.FUNCTION_CALLING)}

根据用户的输入，从给出的函数中选择一个或多个，用符合 JSON Schema 的 JSON 给出它们的名字和参数。如果没有函数能够解决问题，请如实说明。例如对于函数：

```json
{_CALL_EXAMPLE}
```

输入：

过去两周

JSON Schema：

```json
{FUNCTION_CALLING_SCHEMA}
```

输出：

```json
{_CALL_EXAMPLE_OUTPUT}
```""",
    BaseAbility.FUNCTION_IMPL: f"""{_title(BaseAbility.FUNCTION_IMPL)}

根据用户的输入，用 Python 实现给出的函数。函数的返回值必须是符合 JSON Schema 的字典。例如：

输入：

```json
{_CODE_EXAMPLE}
```

JSON Schema：

```json
{_CODE_EXAMPLE_SCHEMA}
```

输出：

```python
{_CODE_EXAMPLE_OUTPUT}
```

只输出一个完整的 Python 代码块，不要调用这个函数，也不要展示它的结果。""",
}
