"""Tools: functions with the schema of their arguments, and the check of what a model wants to call them with."""

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Optional
from weakref import WeakKeyDictionary

from byzerllm.errors import InvalidRequestError
from byzerllm.schema import enforceable, pydantic_here, signature
from byzerllm.schema.enforceable import Schema


class BadArguments(ValueError):
    """A model's arguments do not fit a function. The message is for people and models."""


class Tool:
    """One function that a model may call."""

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Schema,
        function: Callable[..., Any] | None = None,
        arguments: "_Arguments | None" = None,
    ) -> None:
        self.name = name
        self.description = description
        self.parameters = parameters
        """JSON Schema of the arguments, without references."""
        self.function = function
        self._arguments = arguments

    def checked(self, arguments: Any, given: Mapping[str, Any]) -> Callable[[], Any]:
        """The call with a model's arguments and the program's own. Raises `BadArguments`."""
        if self.function is None or self._arguments is None:
            raise BadArguments(
                f"{self.name} was given as JSON and cannot be executed; give the function itself"
            )
        function, (positional, named) = self.function, self._arguments.checked(self.name, arguments, given)
        return lambda: function(*positional, **named)

    def for_engine(self, strict: bool, plain: bool) -> dict[str, Any]:
        """The engine's form."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": enforceable.enforceable(self.parameters, plain, annotated=True),
            "strict": strict,
        }


def tools_of(values: Sequence[Any], given: Collection[str] = ()) -> list[Tool]:
    """The tools behind callables, JSON texts and dictionaries in OpenAI's form.

    Arguments in `given` come from the program, so models do not see them.
    """
    tools: dict[str, Tool] = {}
    for value in values:
        tool = _tool(value, frozenset(given))
        known = tools.get(tool.name)
        if known is not None and known.function is not tool.function:
            raise InvalidRequestError(f"two tools are called {tool.name!r}; rename one", param="tools")
        tools[tool.name] = tool
    if given and tools:
        taken = [tool._arguments for tool in tools.values() if tool._arguments is not None]
        for name in given:
            if taken and not any(arguments.takes(name) for arguments in taken):
                raise InvalidRequestError(f"func_params: no tool takes {name!r}", param="func_params")
    return list(tools.values())


def _tool(value: Any, given: frozenset[str]) -> Tool:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidRequestError(
                f"a tool given as text must be the JSON of serialize_function_to_json: {error}", param="tools"
            ) from None
    if isinstance(value, Mapping):
        described = value.get("function", value)
        if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
            raise InvalidRequestError("a tool given as JSON needs a name", param="tools")
        parameters = enforceable.inlined(enforceable.from_python_words(described.get("parameters")))
        return Tool(described["name"], str(described.get("description") or ""), parameters)
    if not callable(value):
        raise InvalidRequestError(
            f"a tool must be a function or its JSON, got {type(value).__name__}", param="tools"
        )
    arguments = _arguments(value, given)
    return Tool(
        signature.name_of(value),
        inspect.cleandoc(value.__doc__ or "") if inspect.isroutine(value) or value.__doc__ else "",
        arguments.schema,
        value,
        arguments,
    )


class _Arguments:
    """The arguments of a function: their schema, and their check by a pydantic model made of its signature."""

    def __init__(self, function: Callable[..., Any], given: frozenset[str]) -> None:
        pydantic = pydantic_here.pydantic()
        hints = signature.hints_of(function)
        documented = signature.described_parameters(function.__doc__)
        parameters = signature.parameters_of(function)
        self._names = frozenset(parameter.name for parameter in parameters)
        self._any_name = any(
            parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in inspect.signature(function).parameters.values()
        )
        self._positional = [
            parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        ]
        fields: dict[str, Any] = {}
        self._fields: dict[str, str] = {}
        for index, parameter in enumerate(parameters):
            if parameter.name in given:
                continue
            kind, known, others = signature.annotation_of(hints.get(parameter.name, Any))
            description = known.get("description") or documented.get(parameter.name)
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            kind = pydantic_here.limited(kind, known.get("enum"))
            if default is None:
                kind = Optional[kind]  # noqa: UP045 - the type may be no class
            # A model's own names, like `json` or `_x`, are no names for its fields.
            field = f"argument_{index}"
            self._fields[parameter.name] = field
            fields[field] = (
                pydantic_here.annotated(kind, others),
                pydantic.Field(default, alias=parameter.name, description=description),
            )
        others_too = "allow" if self._any_name else "forbid"
        config = pydantic.ConfigDict(extra=others_too, arbitrary_types_allowed=True, protected_namespaces=())
        self._model: Any = pydantic.create_model("Arguments", __config__=config, **fields)
        self.schema = enforceable.inlined(pydantic_here.schema_of(self._model))
        self.schema.pop("title", None)
        for part in self.schema.get("properties", {}).values():
            part.pop("title", None)

    def takes(self, name: str) -> bool:
        """Whether the function takes an argument of this name."""
        return self._any_name or name in self._names

    def checked(
        self, name: str, arguments: Any, given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments for a call."""
        if not isinstance(arguments, Mapping):
            raise BadArguments(f"{name}: the arguments must be an object, got {arguments!r:.100}")
        # The program's arguments win over those that a model made up.
        own = {key: value for key, value in arguments.items() if key not in given}
        try:
            valid = self._model.model_validate_json(json.dumps(own, ensure_ascii=False))
        except ValueError as error:
            raise BadArguments(f"{name}: {pydantic_here.said(error)}") from None
        named = {
            parameter: getattr(valid, field)
            for parameter, field in self._fields.items()
            if field in valid.model_fields_set
        }
        named.update(valid.model_extra or {})
        named.update({key: value for key, value in given.items() if self.takes(key)})
        positional = []
        for parameter in self._positional:
            if parameter not in named:
                break
            positional.append(named.pop(parameter))
        return positional, named


_known: "WeakKeyDictionary[Any, dict[frozenset[str], _Arguments]]" = WeakKeyDictionary()


def _arguments(function: Callable[..., Any], given: frozenset[str]) -> _Arguments:
    """What is known of a function's arguments; worked out once for each function."""
    if not inspect.isfunction(function):
        return _Arguments(function, given)
    known = _known.setdefault(function, {})
    if given not in known:
        known[given] = _Arguments(function, given)
    return known[given]
