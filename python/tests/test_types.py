"""Data types and exceptions."""

import copy
import pickle

import pytest

from byzerllm import errors
from byzerllm.types import StreamItem
from byzerllm.utils import SingleOutput, SingleOutputMeta, StreamOutputs
from byzerllm.utils.client import (
    ExecuteCodeResponse,
    FintuneRequest,
    InferBackend,
    LLMHistoryItem,
    LLMRequest,
    LLMResponse,
    Role,
)


def test_defaults():
    request = LLMRequest(instruction="hi")
    assert (request.embedding, request.max_length, request.top_p, request.temperature) == (
        False,
        4096,
        0.95,
        0.1,
    )
    assert LLMHistoryItem("user", "hi") == LLMHistoryItem(role=Role.User, content="hi")
    assert (Role.User, Role.Assistant, Role.System) == ("user", "assistant", "system")
    assert FintuneRequest("m", "sft/llama2", "d").extra_params.max_seq_length == 1024
    assert ExecuteCodeResponse(0, "", "", "").variables == {}


def test_metadata_is_not_shared():
    first, second = LLMResponse("a", "b"), LLMResponse("a", "b")
    first.metadata["x"] = 1
    assert second.metadata == {}
    assert SingleOutput("a").metadata is not SingleOutput("a").metadata
    assert StreamOutputs([SingleOutput("a")]).outputs[0].text == "a"


def test_backends_in_both_spellings():
    assert InferBackend.Transformers == InferBackend.transformers == "transformers"
    assert InferBackend.VLLM == InferBackend.vllm == "ray/vllm"
    assert InferBackend.DeepSpeed == InferBackend.deepspeed == "ray/deepspeed"
    assert InferBackend.LLAMA_CPP == "llama_cpp"


def test_a_stream_item_is_a_pair_and_like_its_text():
    meta = SingleOutputMeta(input_tokens_count=3)
    item = StreamItem("hello", meta)
    text, unpacked = item
    assert (text, unpacked) == ("hello", meta) and isinstance(item, tuple) and len(item) == 2
    assert item + "\n" == "hello\n"
    assert "> " + item == "> hello"
    assert f"{item}" == str(item) == "hello"
    assert item[0] == item.text == "hello" and item[1].input_tokens_count == item.meta.input_tokens_count == 3
    assert (*item, 1) == ("hello", meta, 1)


def test_every_kind_has_a_class():
    assert len(errors.BY_KIND) == 14
    for kind, cls in errors.BY_KIND.items():
        error = errors.make(kind, "message", "param", 1.5, {"prompt_tokens": 1})
        assert type(error) is cls and isinstance(error, errors.ByzerLLMError)
        assert (error.kind, str(error), error.param, error.retry_after) == (kind, "message", "param", 1.5)
        assert error.usage == {"prompt_tokens": 1}
    assert len({cls.code for cls in errors.BY_KIND.values()}) == 14


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.NotFoundError, ValueError),
        (errors.InvalidRequestError, ValueError),
        (errors.TooLargeError, ValueError),
        (errors.UnsupportedError, NotImplementedError),
        (errors.DeadlineExceededError, TimeoutError),
    ],
)
def test_programs_may_catch_the_builtin(cls, builtin):
    with pytest.raises(builtin):
        raise cls("message")


@pytest.mark.parametrize("cls", sorted(errors.BY_KIND.values(), key=lambda cls: cls.kind))
def test_errors_survive_pickling(cls):
    error = cls("message", param="p", retry_after=2.0)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is cls
        assert (str(again), again.param, again.retry_after) == ("message", "p", 2.0)
