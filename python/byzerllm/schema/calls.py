"""What a model writes to call functions, as pydantic models (`byzerllm.utils.FunctionCallList`)."""

from typing import Any

from byzerllm.schema.pydantic_here import pydantic

_BaseModel: Any = pydantic().BaseModel


class FunctionCall(_BaseModel):  # type: ignore[misc]
    """函数名称和函数参数列表"""

    name: str
    arguments: dict[str, Any]


class FunctionCallWrapper(_BaseModel):  # type: ignore[misc]
    """一次函数调用"""

    function: FunctionCall


class FunctionCallList(_BaseModel):  # type: ignore[misc]
    """函数列表"""

    tool_calls: list[FunctionCallWrapper]
    id: str
    type: str = "function"
