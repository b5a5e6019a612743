"""The package is typed: mypy in strict mode, and the stub of the native module says what the module has."""

import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import byzerllm

PROJECT = Path(__file__).resolve().parents[1]


def mypy(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )


def test_the_stub_of_the_native_module_is_right(tmp_path):
    done = mypy(tmp_path, "mypy.stubtest", "byzerllm._native")
    assert done.returncode == 0, done.stdout


def test_the_package_is_typed(tmp_path):
    done = mypy(
        tmp_path, "mypy", "--config-file", str(PROJECT / "pyproject.toml"), "--cache-dir", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout


def test_programs_are_checked_against_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
from byzerllm.utils.client import ByzerLLM, LLMResponse

def now() -> str:
    return "now"

llm = ByzerLLM().setup_default_model_name("chat").setup_num_workers(1)
answers: list[LLMResponse] = llm.chat_oai("hello", llm_config={"temperature": 0})

async def ask() -> str:
    async for text, meta in llm.async_stream_chat_oai("hello", delta_mode=True):
        print(text, meta.finish_reason)
    return str((await llm.async_chat_oai("hello"))[0].output)

print(llm.chat_oai("hello", tools=[now], execute_tool=True, llm_config={})[0].values)
print(llm.chat_oai("hello", tools=[now], tool_choice=now)[0].output)
print(llm.chat_oai("hello", response_class=list[int], response_after_chat=True)[0].value)
llm.chat_oai("hello", modell="chat")
wrong: int = llm.get_meta()
"""
    )
    done = mypy(tmp_path, "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program))
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    # A call that fits no overload is told twice.
    assert len(errors) == 3 and "modell" in errors[0] and "dict[str, Any]" in errors[2], done.stdout


def test_the_wheel_says_that_it_is_typed():
    names = {str(file) for file in files("byzerllm")}
    assert {"byzerllm/py.typed", "byzerllm/_native.pyi"} <= names
    assert (Path(byzerllm.__file__).parent / "py.typed").is_file()
