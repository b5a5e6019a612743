"""Byzer-LLM's own tests, rewritten: those that need neither network nor GPU, and those whose models can be tiny here.

What stood in `test_template.py` is in `test_templates.py` (`test_qwen`, `test_llama`, `test_default`,
`test_default_with_system_message`, `test_qwen_with_system_message`).
"""

import json
from datetime import date

import pydantic
import pytest
from conftest import CHECKPOINTS, scripted

import byzerllm
from byzerllm.utils.client import ByzerLLM, InferBackend, Templates

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
SHORT = {"max_length": 8, "temperature": 0}


# test_model_meta.py, test_deploy.py: vLLM with whole numbers as settings.


def test_get_meta(llm, checkpoint):
    llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
    llm.deploy(model_path=checkpoint, pretrained_model_type="custom/auto", udf_name="chat", infer_params={})
    meta = llm.get_meta(model="chat")
    assert meta["model_deploy_type"] == "proprietary"
    assert meta["backend"] == "ray/vllm"


def test_chat_oai_with_settings_of_the_backend(llm, checkpoint):
    llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
    llm.deploy(
        model_path=checkpoint,
        pretrained_model_type="custom/auto",
        udf_name="chat",
        infer_params={"backend.max_num_batched_tokens": 8192, "backend.max_model_len": 256},
    )
    llm.setup_template("chat", "auto")
    answer = llm.chat_oai(model="chat", conversations=[{"role": "user", "content": "你好"}], llm_config=SHORT)
    assert len(answer[0].output) > 1
    assert llm.get_meta("chat")["max_model_len"] == 256


# test_deepseek_code.py, test_yi.py: their templates on a model that does not know them.


def test_deepseek_code(llm, checkpoint):
    llm.deploy(model_path=checkpoint, pretrained_model_type="custom/auto", udf_name="chat", infer_params={})
    assert llm.get_meta("chat")["support_chat_template"] is True
    conversation = [{"role": "user", "content": "write a quick sort"}]
    assert "write a quick sort" in llm.apply_chat_template("chat", json.dumps(conversation))
    llm.setup_template("chat", Templates.deepseek_code_chat())
    llm.chat_oai(model="chat", conversations=conversation, llm_config=SHORT)
    llm.setup_template("chat", Templates.deepseek_code_insertion())
    hole = [{"role": "system", "content": "def f(a):\n<｜fim▁hole｜>\n    return a"}]
    asked = llm.chat_oai(model="chat", conversations=hole, llm_config=SHORT)[0].input
    assert asked["instruction"] == f"<｜fim▁begin｜>{hole[0]['content']}<｜fim▁end｜>"
    llm.setup_template("chat", Templates.deepseek_code_completion())
    code = [{"role": "system", "content": "#write a quick sort algorithm"}]
    asked = llm.chat_oai(model="chat", conversations=code, llm_config=SHORT)[0].input
    assert asked["instruction"] == "#write a quick sort algorithm"


def test_yi_quantized(llm):
    llm.setup_gpus_per_worker(1).setup_num_workers(1).setup_infer_backend(InferBackend.VLLM)
    llm.deploy(
        model_path=str(CHECKPOINTS / "awq-gemm"),
        pretrained_model_type="custom/auto",
        udf_name="chat",
        infer_params={"backend.quantization": "AWQ"},
    )
    llm.setup_template("chat", Templates.yi())
    asked = llm.chat_oai(model="chat", conversations=[{"role": "user", "content": "你好"}], llm_config=SHORT)
    assert asked[0].input["generation.stop_token_ids"] == [7]


# test_prompt.py: a class and a function, with the model's answer scripted.


class Writer:
    def __init__(self, llm):
        self.llm = llm

    @byzerllm.prompt(lambda self: self.llm)
    def test1(self, s: str) -> str:
        """
        Hello, {{ s }}!
        """

    @byzerllm.prompt()
    def test2(self, s: str) -> str:
        """
        Hello, {{ s }}!
        """


@byzerllm.prompt()
def test_func(s: str) -> str:
    """
    Hello, {{ s }}!
    """


test_func.__test__ = False


@pytest.fixture
def kimi(llm, tmp_path):
    """Two deployments; the default one is told nothing of the other."""
    for name, answer in (("chat", "I am chat"), ("kimi_8k_chat", "I am Kimi, by MoonshotAI")):
        model = scripted(tmp_path / name, [answer], TEMPLATE)
        llm.deploy(model_path=model, udf_name=name, infer_params={})
    return llm.setup_default_model_name("chat")


def test_prompt_class_method(kimi):
    writer = Writer(kimi)
    assert writer.test1.prompt("你是谁") == "\nHello, 你是谁!"
    assert writer.test1.run("你是谁") == writer.test1("你是谁") == "I am chat"


def test_prompt_class_method_no_llm(kimi):
    writer = Writer(kimi)
    assert writer.test2.prompt("你是谁") == "\nHello, 你是谁!"
    assert writer.test2.with_llm(kimi).run("你是谁") == "I am chat"


def test_prompt_standalone_func(kimi):
    try:
        assert test_func.with_llm(kimi).prompt("你是谁") == "\nHello, 你是谁!"
        assert test_func("你是谁") == "I am chat"
    finally:
        test_func.reset()


def test_prompt_options(kimi):
    options = {"model": "kimi_8k_chat", "llm_config": {"max_length": 1000}}
    assert "MoonshotAI" in Writer(kimi).test1.options(options).run("你是谁")


def test_prompt_with_llm(kimi):
    assert isinstance(Writer(None).test2.with_llm("chat").run("你是谁"), str)


# functions_suite.py: what it prints as a table is asserted.


class TimeRange(pydantic.BaseModel):
    """
    时间区间
    格式需要如下： yyyy-MM-dd
    """

    start: str = pydantic.Field(..., description="开始时间.时间格式为 yyyy-MM-dd")
    end: str = pydantic.Field(..., description="截止时间.时间格式为 yyyy-MM-dd")


class Story(pydantic.BaseModel):
    title: str = pydantic.Field(description="故事的标题")
    body: str = pydantic.Field(description="故事主体")


def run_code():
    """用户表达肯定的观点或者代码执行没有异常，则调用该函数"""
    return 0


def llm_chat():
    """用户表达否定或者代码无法正常执行，则调用该函数"""
    return 1


def calculate_time_range():
    """计算时间区间，时间格式为 yyyy-MM-dd."""


def suite(llm, tmp_path, answer):
    model = scripted(tmp_path / "suite", [answer], TEMPLATE)
    llm.deploy(model_path=model, udf_name="chat", infer_params={})
    return llm.setup_default_model_name("chat")


@pytest.mark.parametrize("with_system_message", [False, True])
def test_function_calling(llm, tmp_path, with_system_message):
    call = {
        "id": "1",
        "type": "function",
        "tool_calls": [{"function": {"name": "run_code", "arguments": {}}}],
    }
    answer = suite(llm, tmp_path, json.dumps(call)).chat_oai(
        [{"role": "user", "content": "代码执行没有问题"}],
        tools=[run_code, llm_chat],
        execute_tool=True,
        enable_default_sys_message=with_system_message,
    )
    assert answer[0].values == [0], answer[0].metadata


@pytest.mark.parametrize("with_system_message", [False, True])
def test_response_class(llm, tmp_path, with_system_message):
    answer = suite(llm, tmp_path, '{"title": "标题", "body": "主体"}').chat_oai(
        [{"role": "user", "content": "请给我讲个故事，分成两个部分，一个标题，一个故事主体"}],
        response_class=Story,
        enable_default_sys_message=with_system_message,
    )
    assert answer[0].value == Story(title="标题", body="主体"), answer[0].metadata


@pytest.mark.parametrize("with_system_message", [False, True])
def test_function_impl(llm, tmp_path, with_system_message):
    code = """```python
from datetime import date


def calculate_time_range():
    year = date.today().year - 1
    return {"start": f"{year}-03-01", "end": f"{year}-07-31"}
```"""
    answer = suite(llm, tmp_path, code).chat_oai(
        [{"role": "user", "content": "去年三月到七月"}],
        impl_func=calculate_time_range,
        response_class=TimeRange,
        execute_impl_func=True,
        enable_default_sys_message=with_system_message,
    )
    year = date.today().year - 1
    assert answer[0].value == TimeRange(start=f"{year}-03-01", end=f"{year}-07-31"), answer[0].metadata


# test_emb_rerank.py


def test_rerank_by_the_default_model_of_embeddings(start_server):
    start_server()
    llm = ByzerLLM()
    llm.setup_gpus_per_worker(0).setup_num_workers(1)
    model = str(CHECKPOINTS / "encoders" / "bert-rank-torch")
    llm.deploy(model_path=model, pretrained_model_type="custom/bge_rerank", udf_name="emb_rerank", infer_params={})
    llm.setup_default_emb_model_name("emb_rerank")
    pair, score = llm.emb_rerank(sentence_pairs=("query", "passage"))[0].output
    assert pair == ["query", "passage"] and isinstance(score, float)


# test_data_analysis.py and tests/auto need agents that are not there yet.
