"""A program of Byzer-LLM's README on a real model. Needs the directory that `BYZERLLM_TEST_MODELS` names."""

import os
from datetime import date
from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from byzerllm.utils.client import ByzerLLM, InferBackend, Templates

MODEL = Path(os.environ.get("BYZERLLM_TEST_MODELS", "")) / "smollm2.gguf"

CODER = MODEL.with_name("qwen.gguf")
CODING = pytest.mark.skipif(not CODER.is_file(), reason="the directory has no qwen.gguf (Qwen2.5-Coder-0.5B)")

pytestmark = pytest.mark.skipif(
    not os.environ.get("BYZERLLM_TEST_MODELS"), reason="BYZERLLM_TEST_MODELS names no directory"
)


def test_the_quick_start(llm):
    llm.setup_gpus_per_worker(4).setup_num_workers(1)
    llm.setup_infer_backend(InferBackend.transformers)
    llm.deploy(
        model_path=str(MODEL),
        pretrained_model_type="custom/llama2",
        udf_name="llama2_chat",
        infer_params={"compute": "exact", "temperature": 0},
    )
    llm_client = ByzerLLM()
    llm_client.setup_template("llama2_chat", "auto")
    conversation = [{"role": "user", "content": "What is the capital of France?"}]
    v = llm.chat_oai(model="llama2_chat", conversations=conversation, llm_config={"temperature": 0})
    assert v[0].output == "The capital of France is Paris."
    assert v[0].metadata["input_tokens_count"] == 37 and v[0].metadata["generated_tokens_count"] == 8
    *_, last = llm.stream_chat_oai(
        model="llama2_chat", conversations=conversation, llm_config={"temperature": 0}
    )
    assert last + "\n" == "The capital of France is Paris.\n"


# The questions of the README about functions and classes, as it asks them.

QUESTIONS = ("计算当前时间", "最近三个月趋势", "最近三天", "你吃饭了么？")
CONFIG = {"temperature": 0, "max_length": 160}


def compute_date_range(
    count: Annotated[int, "时间跨度，数值类型"],
    unit: Annotated[str, "时间单位，字符串类型", {"enum": ["day", "week", "month", "year"]}],
) -> list[str]:
    """
    计算日期范围

    Args:
        count: 时间跨度，数值类型
        unit: 时间单位，字符串类型，可选值为 day,week,month,year
    """
    assert isinstance(count, int) and unit in ("day", "week", "month", "year")
    return [str(count), unit]


def compute_now() -> str:
    """
    计算当前时间
    """
    return "now"


TOOLS = [compute_date_range, compute_now]


class Story(pydantic.BaseModel):
    """
    故事
    """

    title: str = pydantic.Field(description="故事的标题", max_length=20)
    body: str = pydantic.Field(description="故事主体", max_length=40)


def test_what_is_enforced_always_parses(llm):
    llm.deploy(str(MODEL), udf_name="chat", infer_params={"compute": "exact"})
    llm.setup_default_model_name("chat")
    tools = {"tools": TOOLS, "execute_tool": True, "llm_config": CONFIG}
    for question in QUESTIONS:
        [answer] = llm.chat_oai(question, tool_choice="required", **tools)
        assert answer.values and answer.metadata["reason"] == ""
    [answer] = llm.chat_oai(question, tool_choice=compute_now, **tools)
    assert answer.values == ["now"]
    [answer] = llm.chat_oai("请给我讲个故事", response_class=Story, llm_config=CONFIG)
    assert isinstance(answer.value, Story) and answer.metadata["attempts"] == 1


@CODING
def test_the_questions_of_the_readme(llm):
    llm.deploy(str(CODER), udf_name="chat", infer_params={"compute": "exact"})
    llm.setup_default_model_name("chat")
    tools = {"tools": TOOLS, "execute_tool": True, "llm_config": CONFIG}
    found = []
    llm.setup_template("chat", Templates.qwen())
    for question in QUESTIONS:
        [answer] = llm.chat_oai(question, **tools)
        found.append(answer.values)
        assert answer.values or answer.metadata["reason"]
    assert found[:3] == [["now"], [["3", "month"]], [["3", "day"]]]
    # With the model's own format.
    llm.setup_template("chat", "auto")
    assert llm.chat_oai(QUESTIONS[1], **tools)[0].values == [["3", "month"]]
    [answer] = llm.chat_oai(QUESTIONS[2], tool_choice="required", **tools)
    assert [["3", "day"]] == answer.values
    [answer] = llm.chat_oai("请给我讲个故事", response_class=Story, llm_config=CONFIG)
    assert isinstance(answer.value, Story)


@CODING
def test_a_model_writes_a_function(llm):
    class Time(pydantic.BaseModel):
        time: str = pydantic.Field(..., description="时间，时间格式为 yyyy-MM-dd")

    llm.deploy(model_path=str(CODER), udf_name="chat", infer_params={"compute": "exact", "temperature": 0})
    llm.setup_default_model_name("chat").setup_extra_generation_params(
        "chat", {"max_length": 256, "temperature": 0}
    )

    @llm.impl()
    def calculate_current_time() -> Time:
        """
        计算当前时间
        """

    assert calculate_current_time().time.startswith(str(date.today().year))
    llm.undeploy("chat", force=True)
    assert calculate_current_time().time.startswith(str(date.today().year))
