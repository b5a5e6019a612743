"""Notebooks: answers are shown as HTML, and everything works while Jupyter's own event loop runs."""

import asyncio
from dataclasses import dataclass

import nbclient
import nbformat
import pydantic

from byzerllm.display import Responses
from byzerllm.types import LLMClassResponse, LLMFunctionCallResponse, LLMResponse


class Story(pydantic.BaseModel):
    title: str
    parts: list[str] = []


@dataclass
class Point:
    x: int


ANSWER = LLMResponse(
    output="a <b>\n  c",
    input={},
    metadata={
        "input_tokens_count": 3,
        "generated_tokens_count": 5,
        "time_cost": 1500.0,
        "speed": 3.3,
        "finish_reason": "stop",
        "reasoning_content": "h<m",
    },
)


def test_answers_as_html():
    html = ANSWER._repr_html_()
    assert "a &lt;b&gt;\n  c" in html and "pre-wrap" in html
    assert "3 + 5 tokens · 1.50 s · 3 tokens/s · stop" in html and "h&lt;m" in html
    assert "[0.5, 0.5" in LLMResponse(output=[0.5] * 1000, input={})._repr_html_()
    assert len(LLMResponse(output=[0.5] * 1000, input={})._repr_html_()) < 800


def test_objects_and_results_as_html():
    story = LLMClassResponse(ANSWER, Story(title="<T>", parts=["p"]), {"reason": ""})._repr_html_()
    assert "&lt;T&gt;" in story and "title" in story and "Story" in story
    assert "x</th>" in LLMClassResponse(ANSWER, [Point(1)], {})._repr_html_()
    missing = LLMClassResponse(ANSWER, None, {"reason": "no <json>"})._repr_html_()
    assert "no &lt;json&gt;" in missing and "a &lt;b&gt;" in missing
    assert "2024" in LLMFunctionCallResponse(ANSWER, ["2024"], {})._repr_html_()
    assert Responses([ANSWER, 5])._repr_html_().endswith(">5</div>")
    assert Responses([1]) == [1]


def test_blocking_methods_work_inside_a_running_loop(llm, checkpoint):
    async def cell():
        llm.deploy(model_path=checkpoint, udf_name="chat", infer_params={})
        whole = llm.chat_oai("hello", model="chat", llm_config={"max_length": 4, "temperature": 0})[0].output
        *_, last = llm.stream_chat_oai("hello", model="chat", llm_config={"max_length": 4, "temperature": 0})
        later = await llm.async_chat_oai(
            "hello", model="chat", llm_config={"max_length": 4, "temperature": 0}
        )
        return whole, last.text, later[0].output

    whole, streamed, later = asyncio.run(cell())
    assert whole == streamed == later


CELLS = [
    (
        "import byzerllm\nllm = byzerllm.ByzerLLM()\n"
        "llm.deploy(model_path={checkpoint!r}, udf_name='chat', infer_params={{}})\n"
        "llm.setup_default_model_name('chat')\nconfig = {{'max_length': 4, 'temperature': 0}}"
    ),
    "llm.chat_oai('hello', llm_config=config)",
    "(await llm.async_chat_oai('hello', llm_config=config))[0]",
    (
        "texts = [text async for text, _ in llm.async_stream_chat_oai('hello', llm_config=config)]\n"
        "assert texts[-1] == llm.chat_oai('hello', llm_config=config)[0].output"
    ),
    (
        "@byzerllm.prompt(llm, options={{'llm_config': config}})\n"
        "def ask(word: str) -> str:\n    '''\n    {{{{ word }}}}\n    '''\n"
        "assert ask.prompt('hello') == '\\nhello' and isinstance(ask('hello'), str)"
    ),
]


def test_a_notebook(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    cells = [nbformat.v4.new_code_cell(cell.format(checkpoint=checkpoint)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells[1:3]:
        [shown] = [output for output in cell.outputs if output.output_type == "execute_result"]
        assert "tokens" in shown.data["text/html"] and "LLMResponse" in shown.data["text/plain"]
