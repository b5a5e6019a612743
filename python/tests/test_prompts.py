"""Prompt functions: templates become prompts, annotations decide what comes back, markers continue over turns."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass

import pydantic
import pytest

import byzerllm
from byzerllm import MetaHolder
from byzerllm.errors import InvalidRequestError, UpstreamError
from byzerllm.types import LLMClassResponse, LLMResponse, SingleOutputMeta, StreamItem
from byzerllm.utils.client import ByzerLLM, EventName


class Story(pydantic.BaseModel):
    title: str
    body: str = ""


class Script:
    """A client that answers with these texts, one after the other, and remembers what it was asked."""

    def __init__(self, *texts):
        self.texts = list(texts)
        self.asked = []
        self.closed = 0

    def chat_oai(self, conversations, response_class=None, **options):
        self.asked.append({"conversations": conversations, **options})
        text = self.texts.pop(0)
        metadata = {"input_tokens_count": 10, "generated_tokens_count": len(text), "finish_reason": "stop"}
        response = LLMResponse(output=text, input={}, metadata=metadata)
        if response_class is None:
            return [response]
        self.asked[-1]["response_class"] = response_class
        value = Story(title=text) if text else None
        return [LLMClassResponse(response=response, value=value, metadata={"reason": ""})]

    async def async_chat_oai(self, **options):
        return self.chat_oai(**options)

    def stream_chat_oai(self, conversations, delta_mode=False, **options):
        assert delta_mode
        self.asked.append({"conversations": conversations, **options})
        text = self.texts.pop(0)
        meta = SingleOutputMeta()
        try:
            for character in text:
                yield StreamItem(character, meta)
            meta.input_tokens_count, meta.generated_tokens_count = 10, len(text)
            meta.finish_reason = "stop"
        finally:
            self.closed += 1

    async def async_stream_chat_oai(self, **options):
        for item in self.stream_chat_oai(**options):
            yield item

    def said(self, index=0):
        return [(message["role"], message["content"]) for message in self.asked[index]["conversations"]]


@byzerllm.prompt()
def hello(name: str, greeting: str = "Hello") -> str:
    """
    {{ greeting }}, {{ name }}!
    """


@byzerllm.prompt()
def listed(files: list[str]) -> str:
    """
    {% for file in files %}
    - {{ file }}
    {% endfor %}
    {{ count }} files
    """
    return {"count": len(files), "files": sorted(files)}


class Writer:
    """An object with prompt methods."""

    def __init__(self, llm=None):
        self.llm = llm
        self.style = "plain"

    @byzerllm.prompt()
    def bare(self, s: str) -> str:
        """
        Hello, {{ s }}!
        """

    @byzerllm.prompt(lambda self: self.llm)
    def styled(self, s: str) -> str:
        """
        {{ s }} in {{ style }}
        """
        return {"style": self.style}

    @byzerllm.prompt_lazy(lambda self: self.llm)
    def lazy(self, s: str) -> str:
        """{{ s }}?"""


def test_without_a_client_a_call_returns_the_prompt():
    assert hello("you") == hello.prompt("you") == "\nHello, you!"
    assert hello(name="you", greeting="Hi") == "\nHi, you!"
    assert listed(["b", "a"]) == "\n\n- a\n\n- b\n\n2 files"
    assert Writer().bare("你是谁") == Writer().bare.prompt("你是谁") == "\nHello, 你是谁!"
    assert hello.__name__ == "hello" and "greeting" in hello.__doc__
    with pytest.raises(InvalidRequestError, match=r"hello has no model; choose one with hello.with_llm"):
        hello.run("you")
    with pytest.raises(TypeError, match="'name'"):
        hello.prompt()


def test_a_client_answers():
    llm = Script("Good day")
    say = byzerllm.prompt(llm)(hello._func)
    assert say("you") == "Good day"
    assert llm.said() == [("user", "\nHello, you!")]


def test_methods_reach_their_object_and_start_afresh():
    llm = Script("one", "two", "three")
    writer = Writer(llm)
    assert writer.styled("a tale") == "one"
    assert llm.said() == [("user", "\na tale in plain")]
    assert writer.bare.with_llm(llm).run("x") == "two"
    assert writer.bare("x") == "\nHello, x!"  # the choice was for that runner
    assert writer.lazy("why").run() == "three" and llm.said(2) == [("user", "why?")]
    assert Writer.bare.prompt(writer, "y") == "\nHello, y!"


def test_choices_of_a_function_hold_until_reset():
    llm = Script("one", "two")
    hello.with_llm(llm)
    try:
        assert hello("you") == "one" and hello("me") == "two"
    finally:
        hello.reset()
    assert hello("you") == "\nHello, you!"


def test_lazy_prompts_wait():
    llm = Script("done")

    @byzerllm.prompt_lazy()
    def ask(question: str) -> str:
        """{{ question }}?"""

    waiting = ask("why").options({"llm_config": {"temperature": 0}})
    assert waiting.prompt() == "why?" and llm.asked == []
    assert waiting.with_llm(llm).run() == "done"
    assert llm.asked[0]["llm_config"] == {"temperature": 0}


def test_options_reach_the_request():
    llm = Script("x", "y")
    runner = byzerllm.prompt(llm, options={"model": "a", "llm_config": {"top_p": 1}})(hello._func)
    runner.options({"model": "b", "llm_config": {"max_length": 5}}).with_stop_suffix_list(["END"])
    runner.with_conversation([{"role": "system", "content": "Be brief."}])
    runner("you")
    assert llm.asked[0]["model"] == "b"
    assert llm.asked[0]["llm_config"] == {"max_length": 5, "gen.stop": ["END"]}
    assert llm.said() == [("system", "Be brief."), ("user", "\nHello, you!")]
    runner.with_return_prefix("Dear ")
    assert runner("you") == "Dear y"
    assert llm.said(1)[-1] == ("assistant", "Dear ")


def test_classes():
    llm = Script("A tale", "")

    @byzerllm.prompt(llm, check_result=True)
    def tell(topic: str) -> Story:
        """Tell of {{ topic }}"""

    assert tell("bees") == Story(title="A tale")
    assert llm.asked[0]["response_class"] is Story
    assert tell("bees") is None


def test_a_missing_value_is_logged_when_asked(caplog):
    llm = Script("", "")

    def tell() -> Story:
        """Tell"""

    with caplog.at_level(logging.WARNING, "byzerllm"):
        byzerllm.prompt(llm)(tell)()
        assert not caplog.records
        byzerllm.prompt(llm, check_result=True)(tell)()
        assert "tell" in caplog.text


def test_annotations_as_text_and_of_dataclasses_and_lists():
    @dataclass
    class Point:
        x: int

    llm = Script("a", "b", "c")

    def text() -> "str":
        """x"""

    def point() -> Point:
        """x"""

    def stories() -> list[Story]:
        """x"""

    assert byzerllm.prompt(llm)(text)() == "a"
    byzerllm.prompt(llm)(point)()
    byzerllm.prompt(llm)(stories)()
    assert llm.asked[1]["response_class"] is Point and llm.asked[2]["response_class"] == list[Story]


def test_other_annotations_are_refused():
    def number() -> int:
        """x"""

    def nothing():
        """x"""

    def marked() -> Story:
        """x"""

    for func in (number, nothing):
        with pytest.raises(
            InvalidRequestError, match=f"{func.__name__} should return a pydantic model or string"
        ):
            byzerllm.prompt(Script())(func)()
    with pytest.raises(InvalidRequestError, match="markers are for prompts that return text"):
        byzerllm.prompt(Script())(marked).with_response_markers().run()


def test_misuse_is_said():
    def bad() -> str:
        """x"""
        return ["not a dict"]

    with pytest.raises(TypeError, match="Return value of bad should be a dict"):
        byzerllm.prompt(Script())(bad)()
    with pytest.raises(ValueError, match="two texts"):
        hello.with_response_markers(["only one"])
    with pytest.raises(ValueError, match="max_turns"):
        hello.with_max_turns(0)
    with pytest.raises(ValueError, match="llm must be a client"):
        byzerllm.prompt(5)(hello._func)("x")
    with pytest.raises(ValueError, match="render"):
        byzerllm.prompt(render="mako")
    with pytest.raises(InvalidRequestError, match="must be a function"):
        byzerllm.prompt()("text")
    hello.reset()


def test_markers_continue_until_the_end_comes():
    llm = Script("Sure: <RESPONSE>one ", "two ", "three</RESPONSE> bye")
    holder = MetaHolder()
    runner = (
        byzerllm.prompt(llm)(hello._func)
        .with_response_markers()
        .with_continue_prompt("More")
        .with_meta(holder)
    )
    assert runner.run("you") == "one two three"
    told = llm.said(0)[0][1]
    assert told.startswith("\nHello, you!\n\n") and "<RESPONSE>" in told and "</RESPONSE>" in told
    assert llm.said(2)[1:] == [("assistant", "Sure: <RESPONSE>one two "), ("user", "More")]
    assert holder.get_meta()["input_tokens_count"] == 30
    assert holder.get_meta_model().generated_tokens_count == len(
        "Sure: <RESPONSE>one two three</RESPONSE> bye"
    )


def test_markers_of_ones_own():
    llm = Script("[[a]] b", "(<x", "y", "z>)")
    runner = byzerllm.prompt(llm)(hello._func)
    runner.with_response_markers(["[[", "]]"], "{{ RESPONSE_START }}…{{ RESPONSE_END }}")
    assert runner.run("you") == "a" and llm.said()[0][1] == "\nHello, you!\n\n[[…]]"
    runner.with_response_markers(["<", ">"]).with_max_turns(2).with_auto_remove_response_markers(False)
    assert runner.run("you") == "(<xy" and len(llm.asked) == 3


def test_extractors_and_types():
    llm = Script("  x  ", '```json\n{"title": "T"}\n```', "<a>{title: 'U',}</a>", "no json")
    runner = byzerllm.prompt(llm)(hello._func).with_extractor(str.strip)
    assert runner.run("you") == "x"
    runner.with_extractor(None).with_return_type(Story)
    assert runner.run("you") == Story(title="T")
    assert runner.with_response_markers(["<a>", "</a>"]).run("you") == Story(title="U")
    with pytest.raises(UpstreamError, match="cannot be read as Story"):
        runner.with_max_turns(1).run("you")


def streamed(llm):
    @byzerllm.prompt(llm)
    def tell(topic: str) -> Generator[str, None, None]:
        """Tell of {{ topic }}"""

    return tell


def test_streams():
    llm = Script("a tale", "again")
    holder = MetaHolder()
    tell = streamed(llm).with_meta(holder)
    assert list(tell("bees")) == list("a tale")
    assert (
        holder.get_meta_model().finish_reason == "stop" and holder.get_meta()["generated_tokens_count"] == 6
    )
    pieces = tell("bees")
    assert next(pieces) == "a"
    pieces.close()
    assert llm.closed == 2

    def iterated() -> Iterator[str]:
        """x"""

    llm.texts = ["x"]
    assert list(byzerllm.prompt(llm)(iterated)()) == ["x"]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (["<RESPONSE>a < b</RESPONSE>c"], "a < b"),
        (["I will. <RESPONSE>a</R", "ESPONSE>"], "a"),
        (["<RESPONSE>one ", "two</RESPONSE>"], "one two"),
        (["<RESPONSE>cut off</RES", ""], "cut off</RES"),
        (["no markers at all", ""], "no markers at all"),
        (["x" * 300 + "</RESPONSE>"], "x" * 300),
    ],
)
def test_streams_lose_their_markers(turns, expected):
    llm = Script(*turns)
    assert "".join(streamed(llm).with_response_markers().run("bees")) == expected
    assert llm.texts == []
    kept = streamed(Script(*turns)).with_response_markers().with_auto_remove_response_markers(False)
    assert "".join(kept.run("bees")) == "".join(turns)


def test_coroutines_and_async_streams():
    llm = Script("one", "<RESPONSE>a", "b</RESPONSE>", "x", "Title")

    @byzerllm.prompt(llm)
    async def ask(question: str) -> str:
        """{{ question }}{{ mark }}"""
        await asyncio.sleep(0)
        return {"mark": "?"}

    @byzerllm.prompt(llm)
    def tell() -> AsyncGenerator[str, None]:
        """Tell"""

    @byzerllm.prompt(llm)
    async def story() -> Story:
        """Tell"""

    async def main():
        assert await ask("why") == "one"
        assert [piece async for piece in tell.with_response_markers().run()] == ["a", "b"]
        tell.reset()
        assert [piece async for piece in tell()] == ["x"]
        assert await story() == Story(title="Title")

    asyncio.run(main())
    assert llm.said() == [("user", "why?")]
    with pytest.raises(InvalidRequestError, match="await its call"):
        ask.prompt("why")


def test_prompt_of_a_client():
    llm = ByzerLLM().setup_default_model_name("chat")
    llm.get_meta = lambda model, llm_config={}: {"support_chat_template": True}
    seen = []

    def answer(client, model, value):
        seen.append((model, value[0]))
        return False, [{"predict": "answer", "metadata": {"input_tokens_count": 1}}]

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, answer)
    holder = MetaHolder()

    @llm.prompt(
        model="other",
        marker="Be brief.",
        meta_holder=holder,
        conversation=[{"role": "system", "content": "S"}],
    )
    def ask(question: str) -> str:
        """{{ question }}?"""

    assert ask("why") == "answer"
    model, item = seen[0]
    assert model == "other" and item["instruction"] == "why?\n\nBe brief."
    assert [message["content"] for message in item["history"]] == ["S"]
    assert holder.get_meta() == {"input_tokens_count": 1, "generated_tokens_count": 0}

    @llm.prompt(return_origin_response=True, assistant_prefix="So: ")
    def origin() -> str:
        """x"""

    responses = origin()
    assert responses[0].output == "answer" and seen[1][0] == "chat"
    assert seen[1][1]["instruction"] == "So: "

    @llm.prompt()
    def tell() -> Generator[str, None, None]:
        """x"""

    assert list(tell()) == ["answer"]


def test_names_of_models_make_clients(monkeypatch):
    made = []

    def from_default_model(name, auto_connect_cluster=True):
        made.append(name)
        return Script("x")

    monkeypatch.setattr(ByzerLLM, "from_default_model", staticmethod(from_default_model))
    assert byzerllm.prompt("chat")(hello._func)("you") == "x" and made == ["chat"]


def test_holders():
    assert MetaHolder().get_meta() == {} and MetaHolder().get_meta_model().finish_reason == ""
    meta = SingleOutputMeta(input_tokens_count=3, reasoning_content="hm")
    assert MetaHolder(meta).get_meta()["reasoning_content"] == "hm"
    assert MetaHolder(meta).get_meta_model().input_tokens_count == 3


def test_on_an_engine(llm, checkpoint):
    llm.deploy(model_path=checkpoint, udf_name="chat", infer_params={})
    llm.setup_default_model_name("chat")
    config = {"llm_config": {"max_length": 6, "temperature": 0}}

    def whole() -> str:
        """hello"""

    def pieces() -> Generator[str, None, None]:
        """hello"""

    def later() -> AsyncGenerator[str, None]:
        """hello"""

    def story() -> Story:
        """hello"""

    async def collect():
        return "".join([piece async for piece in byzerllm.prompt(llm, options=config)(later)()])

    holder = MetaHolder()
    text = byzerllm.prompt(llm, options=config)(whole).with_meta(holder).run()
    assert text and holder.get_meta_model().finish_reason == "length"
    stream = byzerllm.prompt("chat", options=config)(pieces).with_meta(holder)
    assert "".join(stream()) == text == asyncio.run(collect())
    assert holder.get_meta_model().generated_tokens_count == 6
    short = {"llm_config": {"max_length": 60, "temperature": 0}}
    value = byzerllm.prompt(llm, options=short)(story).run()
    assert value is None or isinstance(value, Story)
