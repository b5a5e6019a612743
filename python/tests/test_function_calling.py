"""Function calling: schemas from signatures, calls in answers, and what becomes of them."""

import asyncio
import datetime
import functools
import json
import sys
import threading
from enum import Enum
from typing import Annotated, Any, List, Literal, Optional  # noqa: UP035 - as users write it

import jsonschema
import pydantic
import pytest
from conftest import CHECKPOINTS, edited, scripted
from places import answering, run_later, server

from byzerllm import formats
from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.schema.tool import BadArguments, tools_of
from byzerllm.utils import FUNCTION_CALLING_SCHEMA, FunctionCallList, serialize_function_to_json
from byzerllm.utils.client import ByzerLLM, EventName, LLMFunctionCallResponse, LLMResponse

HELLO = [{"role": "user", "content": "the last three days"}]


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Box(pydantic.BaseModel):
    size: Size
    inner: Optional["Box"] = None


def dates(
    count: Annotated[int, "how many"],
    unit: Annotated[str, "what", {"enum": ["day", "week", "month", "year"]}] = "day",
) -> List[str]:  # noqa: UP006 - as users write it
    """Computes a range of dates.

    Args:
        count: not shown, the annotation wins
    """
    return [f"{count} {unit}"]


def now() -> str:
    """The time."""
    return "now"


def call(name, /, _bare=False, **arguments):
    function = {"name": name, "arguments": arguments}
    return json.dumps(
        function if _bare else {"id": "x", "type": "function", "tool_calls": [{"function": function}]}
    )


def native(*calls):
    """An answer with calls in the model's own format."""
    return {
        "tool_calls": [[f"call_{index}", name, arguments] for index, (name, arguments) in enumerate(calls)],
        "finish_reason": {"reason": "tool_calls"},
    }


# Signatures.


def test_a_function_as_json():
    text = serialize_function_to_json(dates)
    assert json.loads(text) == {
        "name": "dates",
        "description": dates.__doc__,
        "parameters": {
            "type": "object",
            "properties": {
                "count": {"type": "int", "description": "how many"},
                "unit": {
                    "enum": ["day", "week", "month", "year"],
                    "type": "str",
                    "description": "what",
                    "default": "day",
                },
            },
        },
    }
    assert list(json.loads(text)["parameters"]["properties"]["unit"]) == [
        "enum",
        "type",
        "description",
        "default",
    ]
    assert serialize_function_to_json(text) == text and "\n  " in text

    def other(a, b: list[str], c: List[str], d: Optional[int] = None, e: datetime.datetime = None): ...  # noqa: UP006, UP045, RUF013

    described = json.loads(serialize_function_to_json(other))
    assert described["description"] is None
    types = {name: known["type"] for name, known in described["parameters"]["properties"].items()}
    # Python 3.10 itself makes a type optional whose default is None.
    moment = "datetime" if sys.version_info >= (3, 11) else "Optional"
    assert types == {"a": "NoneType", "b": "list[str]", "c": "List", "d": "Optional", "e": moment}


def test_the_schema_of_a_signature():
    def send(
        box: Box,
        /,
        sizes: list[Size],
        when: datetime.date | None,
        *,
        mode: Literal["fast", "slow"] = "fast",
        json: bool = False,
        _note: str = None,  # noqa: RUF013 - as users write it
    ):
        """Sends it.

        :param box: what to send
        :param str _note: a note
            in two lines
        """
        return box, sizes, when, mode, json, _note

    [tool] = tools_of([send])
    assert tool.description.startswith("Sends it.")
    known = tool.parameters["properties"]
    assert list(known) == ["box", "sizes", "when", "mode", "json", "_note"]
    assert tool.parameters["required"] == ["box", "sizes", "when"]
    assert (
        known["_note"]["description"] == "a note in two lines"
        and known["box"]["description"] == "what to send"
    )
    assert "$ref" not in json.dumps(tool.parameters)
    given = {
        "box": {"size": "s", "inner": {"size": "l"}},
        "sizes": ["s"],
        "when": "2024-01-31",
        "_note": None,
    }
    assert tool.checked(given, {})() == (
        Box(size="s", inner=Box(size="l")),
        [Size.SMALL],
        datetime.date(2024, 1, 31),
        "fast",
        False,
        None,
    )
    enforced = tool.for_engine(True, False)["parameters"]
    jsonschema.Draft202012Validator.check_schema(enforced)
    jsonschema.validate({**given, "box": {"size": "s"}}, enforced)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**given, "mode": "medium"}, enforced)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "count: Field required"),
        ({"count": "many"}, 'got "many"'),
        ({"count": 1, "unit": "century"}, "unit"),
        ({"count": 1, "colour": "red"}, "colour: Extra inputs"),
        ([1], "must be an object"),
        ("x", "must be an object"),
    ],
)
def test_arguments_are_checked(arguments, words):
    [tool] = tools_of([dates])
    with pytest.raises(BadArguments, match=f"dates: .*{words}"):
        tool.checked(arguments, {})


def test_all_kinds_of_callables():
    class Shop:
        def price(self, item: str) -> str:
            """A price."""
            return f"{item} costs 1"

        def __call__(self, item: str) -> str:
            return item

    def anything(a: int = 1, *args: int, **kwargs: Any):
        return a, args, kwargs

    def unresolved(a: "NoSuchType") -> None:  # noqa: F821
        return a

    shop = Shop()
    tools = tools_of([shop.price, shop, functools.partial(anything, a=2), unresolved])
    assert [tool.name for tool in tools] == ["price", "Shop", "anything", "unresolved"]
    assert tools[0].checked({"item": "tea"}, {})() == "tea costs 1"
    assert tools[1].checked({"item": "tea"}, {})() == "tea"
    assert tools[2].checked({"b": 3}, {})() == (2, (), {"b": 3})
    assert tools[3].checked({"a": [1]}, {})() == [1]
    assert tools_of([dates])[0].parameters is tools_of([dates])[0].parameters
    with pytest.raises(InvalidRequestError, match="two tools"):
        tools_of([shop.price, Shop().price])
    for wrong in (3, "{", "{}", {"function": 1}):
        with pytest.raises(InvalidRequestError, match="tool"):
            tools_of([wrong])


def test_the_schema_of_calls():
    assert json.loads(FUNCTION_CALLING_SCHEMA) == FunctionCallList.model_json_schema()
    assert FUNCTION_CALLING_SCHEMA == json.dumps(
        FunctionCallList.model_json_schema(), indent=2, ensure_ascii=False
    )
    found = FunctionCallList.model_validate_json(call("now"))
    assert found.tool_calls[0].function.name == "now" and found.type == "function"


def test_prompts():
    text = formats.function_calling_format("question?", [dates, now], None)
    for part in ("question?", serialize_function_to_json(dates), serialize_function_to_json(now)):
        assert part in text
    assert FUNCTION_CALLING_SCHEMA in text and "compute_date_range" in text
    assert formats.function_calling_format("question?", [], None) == "question?"
    forced = formats.function_calling_format("question?", [dates, now], now)
    assert forced.count(serialize_function_to_json(now)) == text.count(serialize_function_to_json(now)) + 1
    assert "FUNCTION_CALLING" in formats.sys_function_calling_format("q", [now], None)


# How tools reach a model.


def test_a_model_that_knows_tools_gets_them():
    llm = answering(native(("dates", '{"count": 3}')))
    [answer] = llm.chat_oai(HELLO, tools=[dates, now], execute_tool=True)
    assert isinstance(answer, LLMFunctionCallResponse) and answer.values == [["3 day"]]
    assert answer.metadata == {
        "reason": "",
        "selected_functions": ["dates"],
        "calls": [{"name": "dates", "arguments": {"count": 3}, "value": ["3 day"]}],
    }
    [request] = llm._connected.requests
    assert request["input"]["value"][0]["content"] == "the last three days"
    assert [tool["name"] for tool in request["tools"]] == ["dates", "now"]
    assert request["tool_choice"] == {"kind": "auto"} and request["tools"][0]["strict"]
    # The answer without execution is what Byzer-LLM's prompt asks for, and can be executed later.
    [plain] = llm.chat_oai(HELLO, tools=[dates, now])
    found = FunctionCallList.model_validate_json(plain.output)
    assert found.tool_calls[0].function.arguments == {"count": 3}
    assert plain.metadata["tool_calls"][0]["function"]["arguments"] == '{"count": 3}'
    assert llm.execute_function_calling(plain, [dates]).values == [["3 day"]]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"kind": "auto"}),
        ("required", {"kind": "required"}),
        (now, {"kind": "named", "name": "now"}),
        ("now", {"kind": "named", "name": "now"}),
        (serialize_function_to_json(now), {"kind": "named", "name": "now"}),
        ({"type": "function", "function": {"name": "now"}}, {"kind": "named", "name": "now"}),
    ],
)
def test_choices(choice, sent):
    llm = answering(native(("now", "{}")))
    [answer] = llm.chat_oai(HELLO, tools=[dates, now], tool_choice=choice, execute_tool=True)
    assert answer.values == ["now"] and llm._connected.requests[0]["tool_choice"] == sent


def test_a_choice_alone_is_a_tool():
    llm = answering(native(("now", "{}")))
    assert llm.chat_oai(HELLO, tool_choice=now, execute_tool=True)[0].values == ["now"]
    assert [tool["name"] for tool in llm._connected.requests[0]["tools"]] == ["now"]


def test_no_choice_at_all():
    llm = answering("prose")
    [answer] = llm.chat_oai(HELLO, tools=[dates], tool_choice="none", execute_tool=True)
    assert answer.values == [] and "tools" not in llm._connected.requests[0]
    [answer] = llm.chat_oai(HELLO, execute_tool=True)
    assert (answer.values, answer.metadata["reason"]) == ([], "No json block found")
    for wrong, arguments in {
        "none of": {"tools": [now]},
        "needs tools": {},
        "must be": {"tools": [now]},
    }.items():
        choice = {"none of": "later", "needs tools": "required", "must be": 3}[wrong]
        with pytest.raises(InvalidRequestError, match=wrong):
            llm.chat_oai(HELLO, tool_choice=choice, **arguments)


def test_a_model_without_tools_gets_a_prompt():
    llm = answering(call("dates", count=3), refuses=("tools",))
    for _ in range(2):
        assert llm.chat_oai(HELLO, tools=[dates, now], execute_tool=True)[0].values == [["3 day"]]
    for request in llm._connected.requests:
        assert "tools" not in request and "format" not in request
        [message] = request["input"]["value"]
        assert message["content"] == formats.function_calling_format(
            "the last three days", [dates, now], None
        )


def test_a_required_call_is_enforced_without_tools_too():
    llm = answering(call("dates", count=3, unit="week"), refuses=("tools",))
    llm.chat_oai(HELLO, tools=[dates, now], tool_choice="required")
    llm.chat_oai(HELLO, tools=[dates, now], tool_choice=dates)
    several, one = (request["format"]["value"] for request in llm._connected.requests)
    good = json.loads(call("dates", count=3, unit="week")) | {"id": "call_1"}
    for schema in (several, one):
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(good, schema)
    jsonschema.validate(good | {"tool_calls": [{"function": {"name": "now", "arguments": {}}}]}, several)
    for wrong in ([], [{"function": {"name": "dates", "arguments": {"count": "x"}}}], good["tool_calls"] * 2):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | {"tool_calls": wrong}, one)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | {"tool_calls": [{"function": {"name": "now", "arguments": {}}}]}, one)


def test_a_schema_that_is_refused_is_offered_without_enforcement():
    refused = InvalidRequestError("no", param="response_format")
    llm = answering(refused, refused, native(("dates", '{"count": "3"}')))
    assert llm.chat_oai(HELLO, tools=[dates], execute_tool=True)[0].values == [["3 day"]]
    assert [request["tools"][0]["strict"] for request in llm._connected.requests] == [True, True, False]


def test_prompts_of_ones_own():
    llm = answering(call("now"))

    def mine(prompt: str, tools: list, tool_choice: Any) -> str:
        return f"{prompt} {[tool.__name__ for tool in tools]} {tool_choice and tool_choice.__name__}"

    llm.setup_function_calling_format_func("chat", mine)
    assert llm.chat_oai(HELLO, tools=[dates, now], execute_tool=True)[0].values == ["now"]
    llm.chat_oai(HELLO, tools=[dates, now], tool_choice=now)
    auto, named = llm._connected.requests
    assert auto["input"]["value"][0]["content"] == "the last three days ['dates', 'now'] None"
    assert named["input"]["value"][0]["content"].endswith("now") and "format" in named
    llm.chat_oai(HELLO, tools=[now], enable_default_sys_message=True)
    system, user = (m["content"] for m in llm._connected.requests[-1]["input"]["value"])
    assert "FUNCTION_CALLING" in system and "RESPONSE_WITH_CLASS" not in system
    assert user == formats.sys_function_calling_format("the last three days", [now], None)


def test_rendered_prompts_and_odd_names():
    def 时间() -> str:
        return "now"

    llm = answering(call("时间"), call("now"))
    assert llm.chat_oai(HELLO, tools=[时间], execute_tool=True)[0].values == ["now"]
    llm.setup_role_mapping("chat", {"user_role": "User:", "assistant_role": "Assistant:"})
    assert llm.chat_oai(HELLO, tools=[now], execute_tool=True)[0].values == ["now"]
    assert all("tools" not in request for request in llm._connected.requests)
    [prompt] = llm.chat_oai(HELLO, tools=[now], only_return_prompt=True)
    assert "the last three days" in prompt.input and isinstance(prompt, LLMResponse)


def test_arguments_of_the_program():
    def greet(name: str, session: threading.Thread) -> str:
        return f"{name} {session.name}"

    session = threading.Thread(name="s1")
    for refuses in ((), ("tools",)):
        llm = answering(call("greet", name="Ann", session="made up"), refuses=refuses)
        [answer] = llm.chat_oai(
            HELLO, tools=[greet, now], execute_tool=True, func_params={"session": session}
        )
        assert answer.values == ["Ann s1"]
        assert "session" not in json.dumps(llm._connected.requests, ensure_ascii=False)
    with pytest.raises(InvalidRequestError, match="no tool takes 'age'"):
        llm.chat_oai(HELLO, tools=[greet], execute_tool=True, func_params={"age": 3})


# What becomes of an answer.


@pytest.mark.parametrize(
    "text",
    [
        call("dates", count=3),
        f"```json\n{call('dates', count=3)}\n```",
        f"Let me see.\n```json\n{call('dates', True, count=3)}\n```",
        f"[{call('dates', True, count=3)}]",
        '{"tool_calls": [{"function": {"name": "dates", "arguments": "{\\"count\\": 3}"}}]}',
        '{"function": {"name": "dates", "arguments": {"count": 3}}}',
        '{"name": "dates", "parameters": {"count": "3"}}',
        "{'tool_calls': [{'function': {'name': 'dates', 'arguments': {'count': 3,}}}",
        '<tool_call>{"name": "dates", "arguments": {"count": 3}}</tool_call>',
    ],
)
def test_calls_in_all_their_forms(text):
    [answer] = answering(text).chat_oai(HELLO, tools=[dates, now], execute_tool=True)
    assert (answer.values, answer.metadata["reason"]) == ([["3 day"]], "")


def test_every_call_is_made_and_every_mistake_is_told():
    def broken() -> None:
        raise RuntimeError("out of order")

    calls = [
        ("now", "{}"),
        ("later", "{}"),
        ("dates", '{"count": 1}'),
        ("dates", '{"count": "x"}'),
        ("broken", "{}"),
        ("now", '{"a": 1}'),
        ("dates", '{"count": 2, "unit": "week"}'),
    ]
    for answer in (native(*calls), "\n".join(f"```json\n{call(n, **json.loads(a))}\n```" for n, a in calls)):
        [found] = answering(answer).chat_oai(HELLO, tools=[dates, now, broken], execute_tool=True)
        assert found.values == ["now", ["1 day"], ["2 week"]]
        assert found.metadata["selected_functions"] == ["now", "dates", "broken", "dates"]
        reasons = found.metadata["reason"].splitlines()
        assert reasons[0] == "unknown function 'later'; the tools are dates, now, broken"
        assert reasons[1].startswith("dates: count: ") and "RuntimeError: out of order" in reasons[2]
        assert reasons[3].startswith("now: a: Extra") and len(reasons) == 4
        assert ["error" in made for made in found.metadata["calls"]] == [
            False,
            True,
            False,
            True,
            True,
            True,
            False,
        ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I have not eaten.", "No json block found"),
        ('{"answer": 42}', "no tool_calls"),
        (serialize_function_to_json(dates), "no tool_calls"),
        ('{"tool_calls": [3]}', "needs a function with a name"),
        ({"text": '{"tool_calls": [{"function"', "finish_reason": {"reason": "length"}}, "token limit"),
        (
            {
                "text": "<tool_call>x",
                "notices": [{"notice": "invalid_tool_call", "choice": 0, "reason": "odd"}],
            },
            "odd",
        ),
    ],
)
def test_an_answer_without_calls(answer, reason):
    [found] = answering(answer).chat_oai(HELLO, tools=[dates, now], execute_tool=True)
    assert found.values == [] and reason in found.metadata["reason"]
    assert found.response.output == (answer if isinstance(answer, str) else answer["text"])


def test_the_schema_in_the_place_of_no_arguments():
    text = '{"name": "now", "arguments": {"type": "object", "properties": {}}}'
    assert answering(text).chat_oai(HELLO, tools=[now], execute_tool=True)[0].values == ["now"]


def test_a_tool_given_as_json_is_only_offered():
    llm = answering(native(("dates", '{"count": 1}')))
    [answer] = llm.chat_oai(HELLO, tools=[serialize_function_to_json(dates)], execute_tool=True)
    assert answer.values == [] and "given as JSON" in answer.metadata["reason"]
    [tool] = llm._connected.requests[0]["tools"]
    assert tool["parameters"]["properties"]["count"]["type"] == "integer"
    assert tool["parameters"]["required"] == ["count"]


def test_async_tools(monkeypatch):
    run_later(monkeypatch)
    threads = []

    def blocking() -> str:
        threads.append(threading.current_thread())
        return "blocking"

    async def waiting() -> str:
        await asyncio.sleep(0)
        return "waiting"

    llm = answering(native(("blocking", "{}"), ("waiting", "{}")))
    arguments = {"tools": [blocking, waiting], "execute_tool": True}
    [answer] = asyncio.run(llm.async_chat_oai(HELLO, **arguments))
    assert answer.values == ["blocking", "waiting"] and threads[0] is not threading.main_thread()
    with pytest.raises(InvalidRequestError, match="coroutine function"):
        llm.chat_oai(HELLO, **arguments)
    assert threads[1] is threading.main_thread()


def test_callbacks_see_calls():
    llm = answering("unused")
    seen = []
    llm.add_event_callback(
        EventName.BEFORE_CALL_MODEL, lambda _l, _m, items: (False, [{"predict": call("now")}])
    )
    llm.add_event_callback(EventName.AFTER_CALL_MODEL, lambda _l, _m, results: seen.append(results))
    assert llm.chat_oai(HELLO, tools=[now], execute_tool=True)[0].values == ["now"]
    assert seen[0][0]["predict"] == call("now")


def test_without_pydantic(monkeypatch):
    def unseen() -> str: ...

    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(UnsupportedError, match="pip install 'pydantic"):
        answering("x").chat_oai(HELLO, tools=[unseen])


def test_over_http_from_a_server_without_tools():
    with server(f"```json\n{call('dates', count=3)}\n```") as (url, requests):
        llm = ByzerLLM(url=url).setup_default_model_name("chat")
        [answer] = llm.chat_oai(HELLO, tools=[dates, now], tool_choice=dates, execute_tool=True)
    assert answer.values == [["3 day"]] and len(requests) == 1


# While decoding.

TOOLS = "{% for tool in tools or [] %}<tool_call>{{ tool | tojson }}\n{% endfor %}"
CONVERSATION = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
CONFIG = {"temperature": 0, "max_length": 400}


@pytest.fixture(params=["here", "server"])
def place(request):
    """Deployments in this process, then on a server that it finds."""
    if request.param == "server":
        request.getfixturevalue("start_server")()
    return request.param


@pytest.fixture
def speaking(place, tmp_path):
    """A client whose default model says these pieces, and knows tools."""

    def make(*pieces):
        client = ByzerLLM().setup_default_model_name("spoken")
        client.deploy(scripted(tmp_path / "scripted", pieces, TOOLS + CONVERSATION), udf_name="spoken")
        return client

    yield make
    ByzerLLM().undeploy("spoken", force=True)


@pytest.fixture
def tiny(place, tmp_path):
    """A client whose default model has room, knows no tools and talks nonsense."""
    path = edited(CHECKPOINTS / "qwen2-bf16", tmp_path / "tiny", config={"max_position_embeddings": 16_384})
    client = ByzerLLM().setup_default_model_name("tiny")
    client.deploy(path, udf_name="tiny")
    yield client
    client.undeploy("tiny", force=True)


def test_a_call_in_the_models_own_format(speaking):
    llm = speaking(
        "One moment.\n<tool_call>\n", '{"name": "dates", "arguments": ', '{"count": 3}}', "\n</tool_call>"
    )
    [answer] = llm.chat_oai(HELLO, tools=[dates, now], execute_tool=True, llm_config=CONFIG)
    assert (answer.values, answer.metadata["reason"]) == ([["3 day"]], "")
    assert answer.response.metadata["content"] == "One moment."
    [same] = asyncio.run(llm.async_chat_oai(HELLO, tools=[dates, now], execute_tool=True, llm_config=CONFIG))
    assert same.values == answer.values


def test_prose_stays_prose(speaking):
    [answer] = speaking("I have ", "not eaten.").chat_oai(
        HELLO, tools=[now], execute_tool=True, llm_config=CONFIG
    )
    assert answer.values == [] and answer.response.output == "I have not eaten."


@pytest.mark.parametrize("choice", ["required", now])
def test_a_demanded_call_is_made_whatever_the_model_says(speaking, choice):
    llm = speaking("I will not.")
    [answer] = llm.chat_oai(HELLO, tools=[now], tool_choice=choice, execute_tool=True, llm_config=CONFIG)
    assert answer.values and set(answer.values) == {"now"} and answer.metadata["reason"] == ""


@pytest.mark.parametrize("seed", range(3))
def test_a_random_model_without_tools_makes_the_demanded_call(tiny, seed):
    def paint(colour: Literal["red", "blue"], size: Size, on: datetime.date, loud: bool = False) -> str:
        assert isinstance(on, datetime.date)
        return f"{colour} {size.value} {loud}"

    config = {"temperature": 1.5, "top_p": 1, "seed": seed, "max_length": 1500}
    arguments = {"tools": [now, paint], "execute_tool": True, "llm_config": config}
    [answer] = tiny.chat_oai(HELLO, tool_choice=paint, **arguments)
    assert answer.metadata["reason"] == "" and answer.values[0].split()[0] in ("red", "blue")
    [answer] = tiny.chat_oai(HELLO, tool_choice="required", **arguments)
    assert answer.metadata["reason"] == "" and answer.values
    assert len(answer.values) == len(answer.metadata["selected_functions"])
