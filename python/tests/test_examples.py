"""The programs of Byzer-LLM's README, in `examples/byzer_compat`: those that run are run, the others say why not.

Most of them talk to a tiny checkpoint that answers what a test wrote for it, so that what they print is known.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKPOINTS, PATIENCE, REPOSITORY, long_reranker, scripted

from byzerllm.utils.client import ByzerLLM

FOLDER = REPOSITORY / "examples" / "byzer_compat"
ENCODERS = CHECKPOINTS / "encoders"
MODELS = os.environ.get("BYZERLLM_TEST_MODELS")
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
GREETING = "Hello! How can I help you?"

CALL = '{"id": "1", "type": "function", "tool_calls": [{"function": {"name": "compute_date_range", "arguments": {"count": 3, "unit": "day"}}}]}'

CODE = """```python
from datetime import datetime, timedelta


def calculate_current_time():
    return {"time": datetime.now().strftime("%Y-%m-%d")}


def add_one_day(current_day):
    return {"time": (current_day + timedelta(days=1)).strftime("%Y-%m-%d")}


def calculate_time_range():
    return {"start": "2023-03-01", "end": "2023-07-31"}
```"""

# Programs that wait for parts of this project: the file, and the word of the refusal.
LATER = {
    "13_multimodal.py": "vision models",
}


def real(name):
    """A model of the cache."""
    if not MODELS:
        pytest.skip("BYZERLLM_TEST_MODELS names no directory")
    return str(Path(MODELS) / f"{name}.gguf")


@pytest.fixture
def answering(tmp_path):
    """Makes a checkpoint that always gives this answer."""
    return lambda text, **config: scripted(tmp_path / "scripted", [text], TEMPLATE, **config)


def run(name, tmp_path, plain=False, **variables):
    """Runs a program as its users do and returns what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment.update(variables, RAY_TMPDIR=str(tmp_path))
    command = [sys.executable] if plain else [sys.executable, "-m", "byzerllm", "run"]
    return subprocess.run(
        [*command, str(FOLDER / name)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=5 * PATIENCE,
        check=False,
    )


def printed(name, tmp_path, plain=False, **variables):
    done = run(name, tmp_path, plain, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_01_quick_start(answering, tmp_path):
    # The program calls it a Llama 2, and its layers do nothing in either family.
    model = answering(GREETING, architectures=["LlamaForCausalLM"], model_type="llama")
    assert printed("01_quick_start.py", tmp_path, MODEL=model) == f"{GREETING}\n"


def test_02_azure_openai(tmp_path, simulated):
    azure = simulated("azure_openai", "--api-key", "xxx", "--model", "xxxxxx")
    assert "hello" in printed("02_azure_openai.py", tmp_path, AZURE_URL=azure.url)


def test_15_saas(tmp_path, simulated):
    key = ("--api-key", "xxxxxxx")
    spark = simulated("sparkdesk", *key, "--app-id", "xxxxxxx", "--secret", "xxxxxxx")
    short = ("--api-key", "xxxx")
    output = printed(
        "15_saas.py",
        tmp_path,
        BAICHUAN_URL=simulated("baichuan", *key).parameters["saas.base_url"],
        QIANWEN_URL=simulated("qianwen", *key).parameters["saas.base_url"],
        OPENAI_URL=simulated("openai", *short).parameters["saas.base_url"],
        OPENAI_PROXY="",
        ZHIPU_URL=simulated("zhipu", *short).parameters["saas.base_url"],
        SPARK_URL=spark.parameters["saas.gpt_url"].rpartition("/v")[0] + "/v3.1/chat",
    )
    assert output.count("你好") >= 4
    assert "your prompt content" in output


def test_03_outside_the_cluster(answering, tmp_path, start_server):
    server = start_server()
    ByzerLLM().deploy(model_path=answering(GREETING), udf_name="llama2_chat", infer_params={})
    assert printed("03_outside_the_cluster.py", tmp_path) == f"{GREETING}\n"
    assert server.process.poll() is None


def test_04_embedding(tmp_path, simulated):
    baichuan = simulated("baichuan", "--api-key", "xxxxxxx")
    output = printed(
        "04_embedding.py",
        tmp_path,
        MODEL=str(ENCODERS / "bert-mean"),
        BAICHUAN_URL=baichuan.parameters["saas.base_url"],
    )
    ours, theirs = (json.loads(line) for line in output.splitlines())
    assert len(ours) == 32 and abs(sum(number * number for number in ours) - 1) < 1e-5
    assert len(theirs) > 0


def test_05_rerank(tmp_path):
    one, many = printed("05_rerank.py", tmp_path, MODEL=long_reranker(tmp_path / "reranker")).splitlines()
    pair, score = ast.literal_eval(one)
    assert pair == ["query", "passage"] and isinstance(score, float)
    [[first, best], [second, worst]] = ast.literal_eval(many)
    assert first[0] == second[0] == "what is panda?" and best >= worst


def test_06_quantization(tmp_path):
    models = {"MODEL": "baichuan2-7b-f16", "AWQ_MODEL": "awq-gemm"}
    output = printed(
        "06_quantization.py", tmp_path, **{name: str(CHECKPOINTS / model) for name, model in models.items()}
    )
    # The weights are random, and so are both answers.
    assert len(output.strip()) > 40


def test_07_vllm_and_deepspeed(tmp_path):
    model = scripted(tmp_path / "scripted", ["I am", " fine."], TEMPLATE)
    lines = printed("07_vllm_and_deepspeed.py", tmp_path, MODEL=model).splitlines()
    assert lines == ["I am fine.", "I am", "", "I am fine.", "", "I am fine."]


def test_08_openai_api(tmp_path, start_server):
    model = scripted(tmp_path / "scripted", ["def", " sort(): ..."], TEMPLATE)
    server = start_server()
    ByzerLLM().deploy(model_path=model, udf_name="wenxin_chat", infer_params={})
    output = printed("08_openai_api.py", tmp_path, plain=True, BASE_URL=f"{server.url}/v1")
    assert output == "def sort(): ...\ndef sort(): ..."


def test_09_function_calling(answering, tmp_path):
    lines = printed("09_function_calling.py", tmp_path, MODEL=answering(CALL)).splitlines()
    moment = r"'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'"
    for question, line in zip(("计算当前时间", "最近三个月趋势", "最近三天"), lines, strict=False):
        assert re.fullmatch(rf"{question} \[\[{moment}, {moment}\]\] ", line)
    assert re.fullmatch(rf"\[{moment}, {moment}\]", lines[3])
    assert re.fullmatch(rf"tool_choice \[{moment}\]", lines[4])


def test_10_response_class(answering, tmp_path):
    story = answering('{"title": "勇敢的小兔子", "body": "在一个美丽的森林里"}')
    lines = printed("10_response_class.py", tmp_path, MODEL=story).splitlines()
    assert lines == ["Story(title='勇敢的小兔子', body='在一个美丽的森林里')"] * 3


def test_11_function_implementation(answering, tmp_path):
    lines = printed("11_function_implementation.py", tmp_path, MODEL=answering(CODE)).splitlines()
    assert re.fullmatch(r"Time\(time='\d{4}-\d\d-\d\d'\)", lines[0])
    first, second = (float(line.split(": ")[1]) for line in lines[1:3])
    assert lines[1].startswith("first time cost") and lines[2].startswith("second time cost")
    assert first > second > 0
    assert "Time(time='2024-01-29')" in lines
    assert lines.count("TimeRange(start='2023-03-01', end='2023-07-31')") == 2
    assert lines[-2:] == ["start='2023-03-01' end='2023-07-31'", "reason: "]


def test_12_meta_templates_parameters(tmp_path):
    output = printed("12_meta_templates_parameters.py", tmp_path, MODEL=real("smollm2"))
    meta, answer, last = output.splitlines()
    assert meta == (
        "{'model_deploy_type': 'proprietary', 'backend': 'ray/vllm', 'support_stream': True, "
        "'support_chat_template': True, 'max_model_len': 8192, 'architectures': ['LlamaForCausalLM'], "
        "'engine': 'byzerllm'}"
    )
    assert r"'instruction': '<|im_start|>user\nSay hello.\n<|im_end|>\n<|im_start|>assistant\n'" in answer
    assert "'generation.stop_token_ids': [7]" in answer and "'generation.repetition_penalty': 1.1" in answer
    assert last.startswith("Hello")


@pytest.mark.parametrize("name", sorted(LATER))
def test_programs_that_wait_say_what_is_missing(name, tmp_path):
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"")
    done = run(name, tmp_path, MODEL=str(tmp_path), PICTURE=str(picture))
    assert done.returncode == 1
    assert re.search(rf"UnsupportedError: .*{LATER[name]} are not supported", done.stderr.splitlines()[-1])


def test_the_table_counts_every_program():
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(
        r"^\| (\d+) \| \[`(.+?)`\]\((.+?)\) \| .* \| (runs|later: [^|]+) \|$", text, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == list(range(1, 19))
    files = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".sql", ".sh"))
    assert [row[1] for row in rows] == [row[2] for row in rows] == files
    running = {row[1] for row in rows if row[3] == "runs"}
    tested = {test.split("_")[1] for test in globals() if re.match(r"test_\d\d_", test)}
    assert {name[:2] for name in running} == tested
    waiting = set(files) - running
    assert {name for name in waiting if name.endswith(".py")} == set(LATER)
    assert f"{len(running)} of the 18 run, {len(waiting)} wait" in text
    subprocess.run(["bash", "-n", FOLDER / "18_setup_machine.sh"], check=True)


def test_the_examples_are_typed(tmp_path):
    command = [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "examples" / "mypy.ini")]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path), *sorted(map(str, FOLDER.glob("*.py")))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
