"""Function calling: how tools reach a model, and what becomes of the calls in its answer.

A model whose chat template knows tools gets them there. Others get a prompt. A required call is enforced while decoding
in both cases, wherever the place of the model can do that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byzerllm import enforcing, formats
from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.schema import reader, signature
from byzerllm.schema.enforceable import Schema
from byzerllm.schema.tool import BadArguments, Tool, tools_of
from byzerllm.stepping import Ask, Steps, Work
from byzerllm.types import LLMFunctionCallResponse, LLMResponse

if TYPE_CHECKING:
    from byzerllm.client import ByzerLLM

Item = dict[str, Any]

# Calls in one answer, where several are demanded.
_MOST_CALLS = 16
_ENGINE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class _Choice:
    """What `tool_choice` asks for."""

    kind: str
    """`none`, `auto`, `required` or `named`."""
    name: str | None = None

    def for_engine(self) -> Item:
        return {"kind": self.kind, "name": self.name} if self.name else {"kind": self.kind}

    @property
    def demands(self) -> bool:
        """Whether there must be a call."""
        return self.kind in ("required", "named")


def steps(
    llm: "ByzerLLM",
    ask: Ask,
    history: list[Item],
    tools: Sequence[Any],
    tool_choice: Any,
    execute: bool,
    func_params: Mapping[str, Any] | None,
) -> Steps[list[Any]]:
    """A chat with tools: plain responses, or with `execute` what the called functions returned."""
    choice, given = _chosen(tools, tool_choice)
    params = dict(func_params or {}) if execute else {}
    offered = tools_of(given, params)
    if choice.kind == "none" or not offered:
        responses = yield from llm._ask(ask, history)
    else:
        responses = yield from _Offer(llm, ask, history, given, offered, choice, params).steps()
    if ask.only_return_prompt or not execute:
        return responses
    done = []
    for response in responses:
        done.append((yield from executed(response, offered, params)))
    return done


def _chosen(tools: Sequence[Any], choice: Any) -> tuple[_Choice, list[Any]]:
    """What is asked for, and the tools with the chosen one among them."""
    given = list(tools)
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, Mapping) else choice.get("type")
    if choice is None or choice == "auto":
        return _Choice("auto"), given
    if choice == "none":
        return _Choice("none"), given
    if choice == "required" or choice == "any":
        if not given:
            raise InvalidRequestError('tool_choice "required" needs tools', param="tool_choice")
        return _Choice("required"), given
    if callable(choice):
        if not any(tool is choice or tool == choice for tool in given):
            given.append(choice)
        return _Choice("named", signature.name_of(choice)), given
    if isinstance(choice, str):
        names = [tool.name for tool in tools_of(given)]
        if choice in names:
            return _Choice("named", choice), given
        if choice.lstrip().startswith("{"):
            [tool] = tools_of([choice])
            return _Choice("named", tool.name), given if tool.name in names else [*given, choice]
        raise InvalidRequestError(
            f"tool_choice {choice!r} is none of the tools ({', '.join(names)}); use a function, its name, "
            '"auto", "required" or "none"',
            param="tool_choice",
        )
    raise InvalidRequestError(
        f'tool_choice must be a function, its name, "auto", "required" or "none", got {choice!r}',
        param="tool_choice",
    )


class _Offer:
    """Tools on their way to a model."""

    def __init__(
        self,
        llm: "ByzerLLM",
        ask: Ask,
        history: list[Item],
        given: list[Any],
        offered: list[Tool],
        choice: _Choice,
        params: Mapping[str, Any],
    ) -> None:
        self._llm, self._ask, self._history = llm, ask, history
        self._given, self._offered, self._choice, self._params = given, offered, choice, params
        kind = "sys_function_calling" if ask.with_abilities else "function_calling"
        self._custom = getattr(llm, f"mapping_{kind}_format_func").get(ask.model)

    def steps(self) -> Steps[list[LLMResponse]]:
        if (yield from self._knows_tools()):
            responses = yield from self._natively()
            if responses is not None:
                return responses
        return (yield from self._in_the_prompt())

    def _knows_tools(self) -> Steps[bool]:
        """Whether to try the model's own format."""
        if self._custom is not None or self._ask.with_abilities:
            return False
        if "tools" in self._llm._lacking(self._ask.model):
            return False
        if not all(_ENGINE_NAME.fullmatch(tool.name) for tool in self._offered):
            return False
        return (yield from self._llm._takes_messages(self._ask))

    def _natively(self) -> Steps[list[LLMResponse] | None]:
        """Asks with the model's own format; `None` when it has none."""
        for strict, plain in ((True, False), (True, True), (False, True)):
            request = {
                "tools": [tool.for_engine(strict, plain) for tool in self._offered],
                "tool_choice": self._choice.for_engine(),
            }
            try:
                return (yield from self._llm._ask(self._ask, self._history, request))
            except UnsupportedError as error:
                if error.param not in ("tools", "tool_choice"):
                    raise
                self._llm._lacking(self._ask.model).add("tools")
                return None
            except InvalidRequestError as error:
                # A schema that cannot be enforced; the arguments are checked before a call anyway.
                if error.param not in enforcing.OF_FORMATS or not strict:
                    raise
        return None

    def _in_the_prompt(self) -> Steps[list[LLMResponse]]:
        tools: list[Any] = self._given
        forced = None
        if self._choice.name is not None:
            place = [tool.name for tool in tools_of(tools)].index(self._choice.name)
            forced = tools[place]
        write = self._custom
        if write is None:
            write = (
                formats.sys_function_calling_format
                if self._ask.with_abilities
                else formats.function_calling_format
            )
            tools = [self._shown(tool) for tool in tools]
            forced = None if forced is None else self._shown(forced)
        history = [*self._history]
        history[-1] = {**history[-1], "content": write(history[-1]["content"], tools, forced)}
        if not self._choice.demands:
            return (yield from self._llm._ask(self._ask, history))
        return (yield from enforcing.steps(self._llm, self._ask, lambda enforced: history, self._demanded))

    def _shown(self, tool: Any) -> Any:
        """A tool for the default prompts: without the arguments that the program gives itself."""
        if not callable(tool) or not self._params:
            return tool
        described = json.loads(signature.serialize_function_to_json(tool))
        properties = described["parameters"]["properties"]
        described["parameters"]["properties"] = {
            name: known for name, known in properties.items() if name not in self._params
        }
        return json.dumps(described, ensure_ascii=False, indent=2)

    def _demanded(self, plain: bool) -> Schema:
        """The schema of an answer that calls."""
        calls = []
        for tool in self._offered:
            if self._choice.name in (None, tool.name):
                parameters = tool.for_engine(True, plain)["parameters"]
                function = _object(name={"const": tool.name}, arguments=parameters)
                calls.append(_object(function=function))
        most = 1 if self._choice.name else _MOST_CALLS
        return _object(
            id={"type": "string", "pattern": "^call_[a-z0-9]{1,8}$"},
            type={"const": "function"},
            tool_calls={"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most},
        )


def _object(**members: Schema) -> Schema:
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }


# What becomes of the calls.


def executed(
    response: LLMResponse, tools: Sequence[Tool], func_params: Mapping[str, Any] | None
) -> Steps[LLMFunctionCallResponse]:
    """Calls what an answer asks for, one after the other; what fails does not keep the rest from running."""
    values: list[Any] = []
    selected: list[str] = []
    problems: list[str] = []
    calls: list[Item] = []
    known = {tool.name: tool for tool in tools}
    try:
        found = calls_in(response, known)
    except ValueError as error:
        found = []
        problems.append(str(error))
    for name, arguments in found:
        call: Item = {"name": name, "arguments": arguments}
        calls.append(call)
        try:
            if name not in known:
                raise BadArguments(f"unknown function {name!r}; the tools are {', '.join(known) or 'none'}")
            bound = known[name].checked(arguments, func_params or {})
            selected.append(name)
            value = yield Work(bound)
            if hasattr(value, "__await__"):
                value = yield value
        except BadArguments as error:
            call["error"] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever a program's function raises is told, as in Byzer-LLM
            call["error"] = f"{name}: {type(error).__name__}: {error}"
        else:
            call["value"] = value
            values.append(value)
    problems.extend(call["error"] for call in calls if "error" in call)
    metadata = {"reason": "\n".join(problems), "selected_functions": selected, "calls": calls}
    return LLMFunctionCallResponse(response=response, values=values, metadata=metadata)


def calls_in(response: LLMResponse, known: Mapping[str, Any] = {}) -> list[tuple[str, Any]]:
    """The calls of an answer, names and arguments. Raises `ValueError` with the reason when there are none."""
    native = response.metadata.get("tool_calls")
    if native:
        return [_call(part) for part in native]
    cut = response.metadata.get("finish_reason") == "length"
    found = reader.documents(str(response.output), closed=not cut)
    calls = [call for document in found for call in _calls(document, known)]
    if calls:
        return calls
    if cut:
        raise ValueError("the answer was cut at its token limit; raise max_length")
    refused = response.metadata.get("invalid_tool_call")
    if refused:
        raise ValueError(str(refused))
    raise ValueError("the JSON of the answer has no tool_calls" if found else reader.NO_JSON)


def _calls(document: Any, known: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The calls that a document holds, in any of the forms that models write."""
    if isinstance(document, list):
        return [call for part in document for call in _calls(part, known)]
    if not isinstance(document, Mapping):
        return []
    several = document.get("tool_calls")
    if isinstance(several, Mapping):
        several = [several]
    if isinstance(several, list):
        return [_call(part) for part in several]
    if "function_call" in document:
        return [_call(document["function_call"])]
    if "function" in document:
        return [_call(document)]
    if not isinstance(document.get("name"), str):
        return []
    if "arguments" in document:
        return [_call(document)]
    # Llama's word; but a tool's description that a model repeats is no call.
    written = document.get("parameters")
    return [_call(document)] if document["name"] in known and not _is_schema(written) else []


def _call(part: Any) -> tuple[str, Any]:
    function = part
    if isinstance(part, Mapping) and "function" in part:
        function = part["function"]
        if isinstance(function, str):
            function = {**part, "name": function}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadArguments(f"a call needs a function with a name, got {part!r:.200}")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = reader.last(arguments) if arguments.strip() else {}
        except ValueError:
            pass
    # For a function without arguments small models repeat its schema.
    return function["name"], {} if arguments is None or _is_schema(arguments) else arguments


def _is_schema(arguments: Any) -> bool:
    return isinstance(arguments, Mapping) and arguments.get("type") == "object" and "properties" in arguments
