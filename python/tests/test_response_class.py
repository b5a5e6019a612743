"""Response classes: answers that are objects."""

import asyncio
import dataclasses
import datetime
import enum
import json
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import jsonschema
import pydantic
import pytest
from conftest import CHECKPOINTS, edited
from places import answering, run_later, server

from byzerllm import formats
from byzerllm.errors import InvalidRequestError, TooLargeError
from byzerllm.schema.shape import Shape
from byzerllm.utils.client import ByzerLLM, EventName, LLMClassResponse, LLMResponse

HELLO = [{"role": "user", "content": "a story"}]


class Story(pydantic.BaseModel):
    """A story."""

    title: str = pydantic.Field(description="its title")
    body: str = pydantic.Field(description="its text")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(pydantic.BaseModel):
    number: int = pydantic.Field(ge=0, le=99)
    colour: Colour = Colour.RED


class Thing(pydantic.BaseModel):
    """Everything that must come out of an enforced answer."""

    kind: Literal["a", "b"]
    parts: list[Part] = pydantic.Field(min_length=1, max_length=2)
    first: Part
    maybe: Optional[int] = pydantic.Field(None, ge=0, le=9)  # noqa: UP045 - as users write it
    day: datetime.date
    moment: datetime.datetime
    identity: UUID
    price: Decimal
    counts: dict[Colour, bool]
    pair: tuple[bool, Literal[1, 2]]
    either: Part | bool


def story(**changes):
    return json.dumps({"title": "T", "body": "B", **changes})


# What is asked for.


def test_the_answer_is_an_object():
    llm = answering(story())
    [answer] = llm.chat_oai(HELLO, response_class=Story)
    assert isinstance(answer, LLMClassResponse) and answer.value == Story(title="T", body="B")
    assert answer.metadata == {"reason": "", "resason": "", "attempts": 1}
    assert answer.response.output == story() and answer.response.metadata["generated_tokens_count"] == 5
    [request] = llm._connected.requests
    assert request["format"]["kind"] == "json_schema"
    assert request["format"]["value"]["required"] == ["title", "body"]
    assert request["format"]["value"]["additionalProperties"] is False
    prompt = request["input"]["value"][-1]["content"]
    assert "a story" in prompt and "its title" in prompt


def test_calls_of_the_first_pydantic_go_on_working():
    with pytest.warns(pydantic.warnings.PydanticDeprecatedSince20):
        text = Story.schema_json(ensure_ascii=False)
    with pytest.warns(pydantic.warnings.PydanticDeprecatedSince20):
        assert Story.parse_obj({"title": "T", "body": "B"}).title == "T"
    assert "its title" in text and answering(story()).chat_oai(HELLO, response_class=text)[0].value == {
        "title": "T",
        "body": "B",
    }


@pytest.mark.skipif("sys.version_info >= (3, 14)", reason="pydantic.v1 ends with Python 3.13")
def test_a_class_of_the_first_pydantic():
    from pydantic import v1

    class Inner(v1.BaseModel):
        x: int

    class Outer(v1.BaseModel):
        inner: Inner

    llm = answering('{"inner": {"x": "3"}}')
    assert llm.chat_oai(HELLO, response_class=Outer)[0].value == Outer(inner=Inner(x=3))
    schema = llm._connected.requests[0]["format"]["value"]
    jsonschema.validate({"inner": {"x": 3}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inner": {"x": "no"}}, schema)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (list[Story], f"[{story()}]", [Story(title="T", body="B")]),
        (Point, '{"x": 1}', Point(1)),
        (Colour, '"red"', Colour.RED),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int, "7", 7),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        (Optional[Part], "null", None),  # noqa: UP045 - as users write it
    ],
)
def test_other_types(kind, text, value):
    [answer] = answering(text).chat_oai(HELLO, response_class=kind)
    assert (answer.value, answer.metadata["reason"]) == (value, "")


@pytest.mark.parametrize("kind", [3, object(), print, "no schema", "[]", "{"])
def test_what_is_no_class(kind):
    llm = answering("x")
    with pytest.raises(InvalidRequestError, match="response_class"):
        llm.chat_oai(HELLO, response_class=kind)
    assert llm._connected.requests == []


def test_a_format_of_ones_own():
    llm = answering(story())

    def mine(prompt: str, cls: Any) -> str:
        return f"<{prompt}> {cls.__name__}"

    llm.setup_response_class_format_func("chat", mine)
    llm.setup_response_class_format_after_chat_func("chat", lambda cls: f"again {cls.__name__}")
    llm.chat_oai(HELLO, response_class=Story)
    assert llm._connected.requests[0]["input"]["value"][0]["content"] == "<a story> Story"
    llm.chat_oai(HELLO, response_class=Story, response_after_chat=True)
    first, second = llm._connected.requests[1:]
    assert "format" not in first and first["input"]["value"][0]["content"] == "a story"
    assert [m["content"] for m in second["input"]["value"]] == ["a story", story(), "again Story"]
    assert second["format"]["kind"] == "json_schema"


def test_the_default_system_message():
    llm = answering(story())
    llm.chat_oai(HELLO, response_class=Story, enable_default_sys_message=True)
    system, user = (m["content"] for m in llm._connected.requests[0]["input"]["value"])
    assert "RESPONSE_WITH_CLASS" in system and "FUNCTION_CALLING" not in system
    assert user == formats.sys_response_class_format("a story", Story)
    llm.chat_oai(HELLO, enable_default_sys_message=True)
    assert len(llm._connected.requests[1]["input"]["value"]) == 1
    llm.setup_sys_response_class_format_func("chat", lambda prompt, cls: "mine")
    llm.chat_oai(
        [{"role": "system", "content": "S"}, *HELLO], response_class=Story, enable_default_sys_message=True
    )
    system, user = (m["content"] for m in llm._connected.requests[2]["input"]["value"])
    assert system.endswith("\nS") and "RESPONSE_WITH_CLASS" in system and user == "mine"


def test_prompts():
    prompt = formats.response_class_format("question?", Story)
    assert "question?" in prompt and formats.schema_text(Story) in prompt
    assert formats.schema_text(Story) in formats.response_class_format_after_chat(Story)
    assert formats.response_class_format("q", '{"raw": 1}').count('{"raw": 1}') == 1
    for question in ("question?", "问题？"):
        short = formats.enforced_class_format(question, Story)
        assert question in short and formats.schema_text(Story) in short
        assert len(short) < len(formats.response_class_format(question, Story))
        assert ("请" in short) == (question == "问题？")
    every = formats.base_ability_format()
    assert [word in every for word in ("RESPONSE_WITH_CLASS", "FUNCTION_CALLING", "FUNCTION_IMPL")] == [
        True
    ] * 3
    some = formats.base_ability_format("more", [formats.BaseAbility.FUNCTION_CALLING])
    assert "RESPONSE_WITH_CLASS" not in some and some.endswith("more")
    assert formats.base_ability_format() == every


def test_only_the_prompt():
    llm = answering("x")
    [answer] = llm.chat_oai(HELLO, response_class=Story, only_return_prompt=True)
    assert isinstance(answer.value, LLMResponse) and answer.metadata["reason"] == "Only return prompt"
    assert "a story" in answer.value.input and llm._connected.requests == []


# What comes back.


@pytest.mark.parametrize(
    "text",
    [
        f"Here you are:\n```json\n{story()}\n```\nEnjoy!",
        "{'title': 'T', 'body': 'B',}",
        '{title: "T", body: "B"',
        f'{{"unrelated": 1}} and then {story()}',
        f"{story()} and then ```json\n{story()}\n```",
    ],
)
def test_json_is_mended(text):
    [answer] = answering(text).chat_oai(HELLO, response_class=Story)
    assert answer.value == Story(title="T", body="B") and answer.metadata["attempts"] == 1


def test_a_mistake_is_told_and_asked_about_again():
    llm = answering("no", '{"title": "T"}', story())
    [answer] = llm.chat_oai(HELLO, response_class=Story)
    assert answer.value == Story(title="T", body="B")
    assert answer.metadata["attempts"] == 3 and answer.metadata["reason"] == ""
    assert answer.response.metadata["input_tokens_count"] == 30
    assert answer.response.metadata["generated_tokens_count"] == 15
    assert answer.response.metadata["speed"] == pytest.approx(10)
    last = llm._connected.requests[-1]["input"]["value"]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "No json block found" in last[2]["content"] and "body: Field required" in last[4]["content"]


def test_a_validator_may_raise_anything():
    class Broken(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def look(cls, value):
            raise RuntimeError("out of order")

    [answer] = answering('{"x": 1}').chat_oai(HELLO, response_class=Broken)
    assert answer.value is None and answer.metadata["reason"] == "RuntimeError: out of order"


def test_names_of_dictionaries_are_enforced():
    short = Annotated[str, pydantic.Field(max_length=2)]
    for kind, good, bad in (
        (dict[int, bool], {"3": True}, {"x": True}),
        (dict[short, int], {"ab": 1}, {"abc": 1}),
    ):
        schema = Shape.of(kind).enforced()
        jsonschema.validate(good, schema)
        Shape.of(kind).value(good)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_asking_again_ends():
    llm = answering("no")
    [answer] = llm.chat_oai(HELLO, response_class=Story)
    assert answer.value is None and answer.metadata["reason"] == "No json block found"
    assert answer.metadata["attempts"] == len(llm._connected.requests) == 3
    llm = answering("no", TooLargeError("full"))
    [answer] = llm.chat_oai(HELLO, response_class=Story)
    assert answer.value is None and answer.metadata["attempts"] == 1
    with pytest.raises(TooLargeError):
        answering(TooLargeError("full")).chat_oai(HELLO, response_class=Story)


def test_what_was_cut_has_no_value():
    llm = answering({"text": '{"title": "T", "body": "B', "finish_reason": {"reason": "length"}})
    [answer] = llm.chat_oai(HELLO, response_class=Story)
    assert answer.value is None and "token limit" in answer.metadata["reason"]
    assert len(llm._connected.requests) == 1


def test_a_place_that_enforces_nothing_is_asked_in_words():
    llm = answering(story(), refuses=("format",))
    for _ in range(2):
        assert llm.chat_oai(HELLO, response_class=Story)[0].value.title == "T"
    for request in llm._connected.requests:
        assert "format" not in request
        [message] = request["input"]["value"]
        assert message["content"] == formats.response_class_format("a story", Story)


def test_a_schema_that_is_refused_is_tried_without_limits():
    class Limited(pydantic.BaseModel):
        x: int = pydantic.Field(le=3)

    llm = answering(InvalidRequestError("pattern", param="response_format"), '{"x": 1}')
    assert llm.chat_oai(HELLO, response_class=Limited)[0].value.x == 1
    first, second = (request["format"]["value"]["properties"]["x"] for request in llm._connected.requests)
    assert (first, second) == ({"type": "integer", "maximum": 3}, {"type": "integer"})


def test_over_http_from_a_server_that_enforces_nothing():
    with server("Hm.", "```json\n{'title': 'T', 'body': 'B'}\n```") as (url, requests):
        llm = ByzerLLM(url=url).setup_default_model_name("chat")
        [answer] = asyncio.run(llm.async_chat_oai(HELLO, response_class=Story))
    assert answer.value == Story(title="T", body="B") and answer.metadata["attempts"] == 2
    assert answer.response.metadata["generated_tokens_count"] == 10 and len(requests) == 2


def test_several_choices_are_several_objects():
    llm = answering("unused")
    results = [{"predict": story(title=title)} for title in "AB"]
    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *_: (False, results))
    answers = llm.chat_oai(HELLO, response_class=Story)
    assert [answer.value.title for answer in answers] == ["A", "B"]


def test_async_is_the_same(monkeypatch):
    run_later(monkeypatch)
    expected, llm = answering("no", story()), answering("no", story())
    [answer] = asyncio.run(llm.async_chat_oai(HELLO, response_class=Story))
    assert answer == expected.chat_oai(HELLO, response_class=Story)[0]
    assert llm._connected.requests == expected._connected.requests


def test_the_second_turn_asks_the_same_model():
    llm = answering("free", story())
    llm.default_model_name = None
    [answer] = llm.chat_oai(HELLO, response_class=Story, response_after_chat=True, model="chat")
    assert answer.value.title == "T" and answer.response.metadata["input_tokens_count"] == 20
    assert [request["model"] for request in llm._connected.requests] == ["chat", "chat"]


def test_the_parts_of_a_chat():
    llm = answering(story())
    response = LLMResponse(output=story(), input={})
    assert llm.execute_response_format(response, Story).value == Story(title="T", body="B")
    assert (
        llm.execute_response_format(LLMResponse("x", {}), Story).metadata["reason"] == "No json block found"
    )


def test_the_decorator(monkeypatch, capsys):
    run_later(monkeypatch)
    llm = answering(story())

    @llm.response(instruction="Be brief.", verbose=True)
    def tell(text: str) -> Story:
        """Tells."""

    @llm.response()
    async def tell_later(text: str) -> Story: ...

    assert tell("x").title == "T" and tell.__doc__ == "Tells." and "tell:" in capsys.readouterr().out
    assert asyncio.run(tell_later("y")).title == "T"
    system, user = llm._connected.requests[0]["input"]["value"]
    assert system["content"] == "Be brief." and "x" in user["content"]
    with pytest.raises(InvalidRequestError, match="only one parameter"):

        @llm.response()
        def two(a: str, b: str) -> Story: ...

    with pytest.raises(InvalidRequestError, match="should return a pydantic model"):

        @llm.response()
        def text(a: str) -> str: ...


# Schemas.


def test_what_is_enforced_is_what_is_accepted():
    schema = Shape.of(Thing).enforced()
    good = {
        "kind": "a",
        "parts": [{"number": 1}],
        "first": {"number": 2, "colour": "blue"},
        "maybe": None,
        "day": "2024-02-29",
        "moment": "2023-12-31T23:59:59Z",
        "identity": "00000000-0000-4000-8000-000000000000",
        "price": 1.5,
        "counts": {"red": True},
        "pair": [True, 1],
        "either": False,
    }
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(good, schema)
    Shape.of(Thing).value(good)
    for changes in (
        {"kind": "c"},
        {"parts": []},
        {"day": "2023-02-29"},
        {"day": "2023-04-31"},
        {"moment": "2023-12-31 23:59"},
        {"counts": {"green": True}},
        {"first": {"number": 2, "other": 1}},
        {"extra": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **changes}, schema)
    plain = json.dumps(Shape.of(Thing).enforced(plain=True))
    assert "pattern" not in plain and "maximum" not in plain and '"enum"' in plain


# While decoding.


@pytest.fixture
def tiny(llm, tmp_path):
    """A random model with room, whose answers are nonsense."""
    place = edited(CHECKPOINTS / "qwen2-bf16", tmp_path / "tiny", config={"max_position_embeddings": 16_384})
    llm.deploy(place, udf_name="tiny")
    return llm.setup_default_model_name("tiny")


@pytest.mark.parametrize("seed", range(4))
def test_a_random_model_fills_the_class(tiny, seed):
    config = {"temperature": 1.5, "top_p": 1, "seed": seed, "max_length": 1500}
    [answer] = tiny.chat_oai(HELLO, response_class=Thing, llm_config=config)
    assert answer.metadata["reason"] == "" and isinstance(answer.value, Thing)
    assert answer.metadata["attempts"] == 1


def test_a_list_and_a_server(start_server, tmp_path):
    start_server()
    place = edited(CHECKPOINTS / "qwen2-bf16", tmp_path / "tiny", config={"max_position_embeddings": 16_384})
    llm = ByzerLLM().setup_default_model_name("tiny")
    llm.deploy(place, udf_name="tiny")
    config = {"temperature": 1, "seed": 5, "max_length": 1500}
    parts = list[Part]
    [answer] = asyncio.run(llm.async_chat_oai(HELLO, response_class=parts, llm_config=config))
    assert isinstance(answer.value, list) or answer.response.metadata["finish_reason"] == "length"
    [answer] = llm.chat_oai(HELLO, response_class=Colour, response_after_chat=True, llm_config=config)
    assert answer.value in (Colour.RED, Colour.BLUE)
