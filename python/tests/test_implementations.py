"""Functions that a model writes: the README's programs, run with models that answer with given code."""

import asyncio
import os
import signal
import threading
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pydantic
import pytest
from conftest import PATIENCE, run_program, scripted

from byzerllm.errors import InvalidRequestError
from byzerllm.implementations.execution import ImplementationError, LocalFunction
from byzerllm.sandbox import SandboxedFunction, SandboxError, SandboxSettings, SandboxUnavailableError
from byzerllm.utils import function_impl_format, serialize_function_to_json, sys_function_impl_format
from byzerllm.utils.client import ByzerLLM, EventName, LLMResponse

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


class Time(pydantic.BaseModel):
    time: str = pydantic.Field(..., description="时间，时间格式为 yyyy-MM-dd")


class TimeRange(pydantic.BaseModel):
    """时间区间，格式为 yyyy-MM-dd"""

    start: str = pydantic.Field(..., description="开始时间.时间格式为 yyyy-MM-dd")
    end: str = pydantic.Field(..., description="截止时间.时间格式为 yyyy-MM-dd")


NOW = """当然，下面是实现：

```python
from datetime import datetime

def calculate_current_time():
    return {"time": datetime.now().isoformat()}
```

调用它就能得到当前时间。
"""

TOMORROW = """```python
from datetime import datetime, timedelta
import pydantic

class Time(pydantic.BaseModel):
    time: str

def add_one_day(current_day: datetime) -> Time:
    return Time(time=(current_day + timedelta(days=1)).strftime("%Y-%m-%d"))
```"""

RANGE = """import json
from datetime import datetime

def calculate_time_range():
    year = datetime.now().year - 1
    return json.dumps({"start": f"{year}-03-01", "end": f"{year}-07-31"})
"""


class Answers:
    """A client whose questions are answered here, in turn; the last answer stays."""

    def __init__(self, *outputs):
        self.outputs = list(outputs)
        self.prompts = []
        self.llm = ByzerLLM().setup_default_model_name("chat")
        self.llm.setup_role_mapping("chat", {"user_role": "", "assistant_role": "", "system_msg": ""})
        self.llm.add_event_callback(EventName.BEFORE_CALL_MODEL, self._answer)

    def _answer(self, llm, model, items):
        self.prompts.append(items[0]["instruction"])
        output = self.outputs.pop(0) if len(self.outputs) > 1 else self.outputs[0]
        return False, [{"predict": output, "metadata": {}, "input": items[0]}]


@pytest.fixture
def written(llm, tmp_path):
    """Deploys a model that answers with this text."""

    def deploy(text):
        path = scripted(tmp_path / f"model-{len(list(tmp_path.iterdir()))}", [text], TEMPLATE)
        llm.deploy(model_path=path, pretrained_model_type="custom/auto", udf_name="chat")
        return llm.setup_default_model_name("chat")

    return deploy


def test_a_function_is_written_once_and_run_at_every_call(written):
    llm = written(NOW)

    @llm.impl()
    def calculate_current_time() -> Time:
        """
        计算当前时间
        """

    first = calculate_current_time()
    assert isinstance(first, Time) and first.time.startswith(str(date.today().year))
    llm.undeploy("chat", force=True)
    second = calculate_current_time()
    assert second.time > first.time
    assert list(llm.func_impl_cache) == [f"chat_None_{__name__}.calculate_current_time"]
    assert llm.clear_impl_cache() is llm and not llm.func_impl_cache
    with pytest.raises(ValueError, match="chat"):
        calculate_current_time()


def test_arguments_cross_the_border(written):
    llm = written(TOMORROW)

    @llm.impl()
    def add_one_day(current_day: Annotated[datetime, "当前日期，类型是datatime.datetime"]) -> Time:
        """给传入的日期加一天，得到明天的时间"""

    assert add_one_day(datetime(2024, 2, 28)) == Time(time="2024-02-29")
    assert add_one_day(current_day=datetime(2024, 12, 31, 23, 59)) == Time(time="2025-01-01")
    with pytest.raises(TypeError, match="current_day"):
        add_one_day()


def test_an_instruction_in_both_forms(written):
    llm = written(RANGE)
    year = datetime.now().year - 1
    expected = TimeRange(start=f"{year}-03-01", end=f"{year}-07-31")

    @llm.impl(instruction="去年三月到七月")
    def calculate_time_range() -> TimeRange:
        """计算时间区间，时间格式为 yyyy-MM-dd."""

    assert calculate_time_range() == expected

    def calculate_time_range() -> TimeRange:
        """计算时间区间，时间格式为 yyyy-MM-dd."""

    assert llm.impl(instruction="去年三月到七月")(calculate_time_range)() == expected
    assert list(llm.func_impl_cache) == [f"chat_去年三月到七月_{__name__}.calculate_time_range"]


def test_chat_oai_with_a_function(written):
    llm = written(f"```python\n{RANGE}```")

    def calculate_time_range():
        """计算时间区间，时间格式为 yyyy-MM-dd."""

    conversation = [{"content": "去年三月到七月", "role": "user"}]
    for params in ({}, None):
        t = llm.chat_oai(
            conversation,
            impl_func=calculate_time_range,
            impl_func_params=params,
            response_class=TimeRange,
            execute_impl_func=True,
        )
        assert t[0].value.start.endswith("-03-01") and t[0].metadata["reason"] == ""
    func = t[0].metadata["func"]
    assert t[0].metadata["raw_func"] == RANGE and isinstance(func, SandboxedFunction)
    assert '"start"' in func() and func.__name__ == "calculate_time_range"
    assert conversation == [{"content": "去年三月到七月", "role": "user"}]

    raw = llm.chat_oai(conversation, impl_func=calculate_time_range, response_class=TimeRange)
    assert isinstance(raw[0], LLMResponse) and "def calculate_time_range" in raw[0].output
    with pytest.raises(InvalidRequestError, match="response_class should be set"):
        llm.chat_oai(conversation, impl_func=calculate_time_range)


def test_the_same_for_an_event_loop(written):
    llm = written(TOMORROW)

    @llm.impl()
    async def add_one_day(current_day: datetime) -> Time:
        """The day after."""

    async def program():
        first = await add_one_day(datetime(2024, 1, 1))
        many = await asyncio.gather(
            *(add_one_day(datetime(2024, 1, 1) + timedelta(days=n)) for n in range(20))
        )
        answer = await llm.async_chat_oai(
            "x",
            impl_func=add_one_day,
            impl_func_params={"current_day": datetime(2024, 1, 1)},
            response_class=Time,
            execute_impl_func=True,
        )
        return first, many, answer[0].value

    first, many, chat = asyncio.run(program())
    assert first == many[0] == chat == Time(time="2024-01-02") and many[19] == Time(time="2024-01-21")


def test_functions_one_after_the_other():
    answers = Answers(NOW, TOMORROW)
    llm = answers.llm

    @llm.impl()
    def calculate_current_time() -> Time:
        """计算当前时间"""

    @llm.impl()
    def add_one_day(current_day: Annotated[datetime, "当前日期"]) -> Time:
        """加一天"""

    tomorrow = add_one_day(datetime.fromisoformat(calculate_current_time().time))
    assert tomorrow.time == str(date.today() + timedelta(days=1))
    add_one_day(datetime.now())
    assert len(answers.prompts) == 2


def test_a_function_that_was_changed_is_written_anew():
    answers = Answers("def f():\n    return {'time': '1'}", "def f():\n    return {'time': '2'}")

    def define(text):
        def f() -> Time:
            pass

        f.__doc__ = text
        return answers.llm.impl()(f)

    assert define("a")().time == define("a")().time == "1" and len(answers.prompts) == 1
    assert define("b")().time == "2" and len(answers.prompts) == 2


def test_skip_cache_asks_at_every_call():
    answers = Answers("def f():\n    return {'time': '1'}")

    @answers.llm.impl(skip_cache=True)
    def f() -> Time:
        """."""

    assert f() == f() and len(answers.prompts) == 2


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({}, set()),
        ({"model": "a"}, {"b_None_m.f", "b_i_m.f"}),
        ({"full_func_name": "m.f"}, set()),
        ({"full_func_name": "m.f", "instruction": "i"}, {"a_None_m.f", "b_None_m.f"}),
        (
            {"model": "b", "full_func_name": "m.f", "instruction": "i"},
            {"a_None_m.f", "a_i_m.f", "b_None_m.f"},
        ),
    ],
)
def test_clear_impl_cache(arguments, left):
    llm = ByzerLLM()
    llm.func_impl_cache = {f"{model}_{given}_m.f": print for model in "ab" for given in (None, "i")}
    assert llm.clear_impl_cache(**arguments) is llm
    assert set(llm.func_impl_cache) == left
    with pytest.raises(Exception, match="instruction is required"):
        llm.clear_impl_cache(model="a", full_func_name="m.f")


def test_verbose_shows_the_code_and_the_time(capsys):
    answers = Answers("def f():\n    return {'time': '1'}")

    @answers.llm.impl(verbose=True)
    def f() -> Time:
        """."""

    f()
    shown = capsys.readouterr().out
    assert "def f():\n    return {'time': '1'}" in shown and " took 0." in shown
    f()
    assert "def f" not in capsys.readouterr().out


def test_the_prompt_holds_what_is_asked_for():
    def f(day: Annotated[datetime, "a day"]) -> Time:
        """Says what day it is."""

    for prompt in (function_impl_format("去年", f, Time), sys_function_impl_format("去年", f, Time)):
        for part in (serialize_function_to_json(f), "时间格式为 yyyy-MM-dd", "去年", "Says what day it is."):
            assert part in prompt
    assert "FUNCTION_IMPL" in sys_function_impl_format("", f, Time)
    assert "```python" in function_impl_format("", f, Time)
    assert "`def f(day):`" in function_impl_format("", f, Time)
    assert "def g" not in function_impl_format("", '{"name": "g"}', Time)


def test_formats_of_ones_own():
    answers = Answers("def f():\n    return {'time': '1'}")
    llm = answers.llm

    def f():
        """doc"""

    def function_impl_format2(prompt, func, cls):
        return (
            f"{serialize_function_to_json(func)}{cls.schema_json(ensure_ascii=False)}{func.__doc__}{prompt}"
        )

    options = {"impl_func": f, "response_class": Time, "execute_impl_func": True}
    llm.setup_impl_func_format_func("chat", function_impl_format2)
    assert llm.chat_oai("question", **options)[0].value == Time(time="1")
    assert "docquestion" in answers.prompts[0] and "yyyy-MM-dd" in answers.prompts[0]
    llm.setup_sys_impl_func_format_func("chat", lambda prompt, func, cls: f"mine {prompt}")
    llm.chat_oai("question", enable_default_sys_message=True, **options)
    assert "mine question" in answers.prompts[1] and "FUNCTION_IMPL" in answers.prompts[1]
    assert llm.chat_oai("question", only_return_prompt=True, **options)[0].output == ""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("I cannot do that.", "No Python block found"),
        ("hello", "No Python block found"),
        ("```json\n{}\n```", "No Python block found"),
        ("```python\ndef g():\n    return 1\n```", "the code has no function f; it has g"),
        ("def f():\n    return {'time': 1 / 0}", "ZeroDivisionError: division by zero"),
        ("def f():\n    return {'tim': 'x'}", "the function's result does not fit"),
        ("def f():\n    return None", "the function's result does not fit"),
        ("def f():\n    return object()", "a value of type object cannot cross the sandbox's border"),
        ("import os\ndef f():\n    return {'time': os.getcwd()}", "os is not among the modules"),
        ("def f(x):\n    return {'time': x}", "TypeError"),
        ("def f():\n    raise SystemExit(3)", "SystemExit: 3"),
        ("def f():\n    return {'time': 'x' * (1 << 21)}", "larger than output_bytes allows"),
    ],
)
def test_what_goes_wrong_is_told(output, reason):
    answers = Answers(output)

    def f() -> Time:
        """."""

    (response,) = answers.llm.chat_oai("x", impl_func=f, response_class=Time, execute_impl_func=True)
    assert response.value is None and reason in response.metadata["reason"]
    assert response.metadata["resason"] == response.metadata["reason"]
    with pytest.raises((ImplementationError, SandboxError), match=reason.split(";")[0]):
        answers.llm.impl()(f)()
    assert not answers.llm.func_impl_cache


def test_an_answer_made_up_while_loading_is_refused():
    source = "import os, json\ndata = json.dumps({'id': 1, 'functions': 3}).encode()\n"
    source += "os.write(4, len(data).to_bytes(4, 'big') + data)\ndef f():\n    return 1\n"
    with pytest.raises(SandboxError, match="something else than an answer"):
        SandboxedFunction(source, "f", SandboxSettings(allowed_modules=None))()


def test_a_program_ends_in_the_middle_of_a_call():
    program = """
import threading, time
from byzerllm.sandbox import SandboxedFunction, SandboxSettings
from byzerllm.sandbox.pool import POOL
settings = SandboxSettings(time_limit=3600)
endless = SandboxedFunction("def f():\\n    while True:\\n        pass\\n", "f", settings)
endless.load()
[slot] = POOL._slots.values()
threading.Thread(target=endless, daemon=True).start()
while slot.child._requests < 2:
    time.sleep(0.001)
"""
    assert run_program(program).returncode == 0


def test_arguments_that_cannot_cross_are_named():
    endless = []
    endless.append(endless)
    for wrong, message in ((object(), "type object cannot cross"), (endless, "hold themselves")):
        with pytest.raises(SandboxError, match=message):
            SandboxedFunction("def f(x):\n    return 1\n", "f")(wrong)


def test_what_is_printed_comes_along_up_to_a_limit():
    source = "def f():\n    print('x' * 1000)\n    return 1\n"
    assert SandboxedFunction(source, "f").run((), {}) == (1, "x" * 1000 + "\n")
    assert SandboxedFunction(source, "f", SandboxSettings(output_bytes=800)).run((), {}) == (1, "x" * 100)


def test_a_traceback_shows_the_code():
    with pytest.raises(SandboxError, match="ZeroDivisionError") as caught:
        SandboxedFunction("def f():\n    wanted = 0\n    return 1 / wanted\n", "f")()
    assert 'File "<implementation>", line 3, in f' in str(caught.value)
    assert "return 1 / wanted" in caught.value.child_traceback
    assert "worker.py" not in caught.value.child_traceback


def test_the_best_block_is_taken():
    prose = "First:\n```sh\npip install x\n```\nThen:\n```py\ndef f():\n    return {'time': 'good'}\n```\n"
    for output in (
        prose,
        f"{prose}For example:\n```python\nprint(f())\n```",
        prose.removesuffix("\n```\n"),
        f"{prose}```json\n{{}}\n```",
    ):
        answers = Answers(output)

        @answers.llm.impl()
        def f() -> Time:
            """."""

        assert f() == Time(time="good"), output


def test_annotations_as_text_and_classes_that_come_later():
    answers = Answers("def f():\n    return {'time': '1'}")

    class Local(pydantic.BaseModel):
        time: str

    @answers.llm.impl()
    def f() -> "Local":
        """."""

    assert f() == Local(time="1")
    for wrong in (lambda: None, lambda: 1):
        with pytest.raises(InvalidRequestError, match="impl function should return a pydantic model"):
            answers.llm.impl()(wrong)

    def g() -> "Unknown":  # noqa: F821
        """."""

    with pytest.raises(InvalidRequestError, match="cannot be resolved"):
        answers.llm.impl()(g)


def test_without_a_sandbox_is_a_choice_in_words(monkeypatch):
    monkeypatch.setenv("MINE", "seen")
    source = "import os\ndef f():\n    return {'time': os.environ['MINE']}"
    answers = Answers(source)

    def f() -> Time:
        """."""

    with pytest.raises(SandboxError, match="os is not among"):
        answers.llm.impl()(f)()
    answers.llm.setup_sandbox(allowed_modules=None)
    with pytest.raises(SandboxError, match="KeyError"):
        answers.llm.impl()(f)()
    assert answers.llm.impl(sandbox="none")(f)() == Time(time="seen")
    answers.llm.setup_sandbox("none")
    (response,) = answers.llm.chat_oai("x", impl_func=f, response_class=Time, execute_impl_func=True)
    assert response.value == Time(time="seen") and isinstance(response.metadata["func"], LocalFunction)
    for wrong in (
        {"sandbox": "off"},
        {"sandbox": "none", "time_limit": 1},
        {"memory": 3},
        {"time_limit": 0},
        {"time_limit": float("inf")},
        {"memory_bytes": 1.5},
        {"scratch_bytes": -1},
        {"allowed_modules": "os"},
    ):
        with pytest.raises(InvalidRequestError):
            answers.llm.setup_sandbox(**wrong)


def test_limits_are_changed_one_by_one():
    llm = ByzerLLM().setup_sandbox(time_limit=3).setup_sandbox(output_bytes=100)
    assert llm._chosen_sandbox() == SandboxSettings(time_limit=3, output_bytes=100)
    assert llm.setup_sandbox("process")._chosen_sandbox() == SandboxSettings()
    assert llm.setup_sandbox("none").setup_sandbox(time_limit=1)._chosen_sandbox() == SandboxSettings(
        time_limit=1
    )
    with pytest.raises(InvalidRequestError, match="impl takes"):
        llm.impl(sandbox="process")


def test_what_was_written_without_a_sandbox_does_not_leave_it():
    answers = Answers("import datetime, sys\ndef f():\n    return {'time': str('pytest' in sys.modules)}")

    def f() -> Time:
        """."""

    answers.llm.setup_sandbox(allowed_modules=["sys", "datetime"])
    assert answers.llm.impl(sandbox="none")(f)() == Time(time="True")
    assert answers.llm.impl()(f)() == Time(time="False") and len(answers.prompts) == 1


USUAL = """
import base64, calendar, collections, csv, dataclasses, decimal, enum, functools, hashlib, io, itertools, json, locale, math
import random, re, secrets, statistics, string, textwrap, time, typing, uuid, zoneinfo
from datetime import date, datetime, timedelta, timezone

import pydantic


class Day(pydantic.BaseModel):
    day: date
    names: typing.List[str] = pydantic.Field(default_factory=list)


@dataclasses.dataclass
class Point:
    x: "int"


class Colour(enum.Enum):
    RED = 1


def f():
    parsed = datetime.strptime("2024-02-29 01:02", "%Y-%m-%d %H:%M")
    text = io.StringIO()
    csv.writer(text).writerow(["a", 1])
    return {
        "parsed": parsed,
        "named": time.strftime("%B", time.strptime("2024-02-29", "%Y-%m-%d")),
        "far": datetime(2024, 1, 1, tzinfo=timezone.utc).astimezone(zoneinfo.ZoneInfo("Asia/Shanghai")).hour,
        "last": calendar.monthrange(2024, 2)[1],
        "encoded": "文".encode("gbk").decode("gbk") + "é".encode("latin-1").decode("cp1252"),
        "sum": decimal.Decimal("0.1") + decimal.Decimal("0.2"),
        "hash": hashlib.sha256(b"x").hexdigest()[:4] + base64.b64encode(b"x").decode(),
        "found": re.findall(r"\\d+", "a1b22"),
        "money": locale.format_string("%d", 1000),
        "csv": text.getvalue(),
        "random": 0 <= random.random() < 1 and len(secrets.token_hex(2)) == 4 and uuid.uuid4().version == 4,
        "day": Day(day="2024-01-01", names=["a"]),
        "point": Point(x=1),
        "colour": Colour.RED,
        "mean": statistics.mean([1, 2, 3]),
    }
"""


@pytest.mark.parametrize("without", [(), ("namespace",), ("landlock",), ("landlock", "namespace")], ids=str)
def test_usual_code_runs_whatever_layers_there_are(without):
    source = USUAL
    if len(without) == 2:
        # A zone by its name is a file, and there is none to be had.
        source = source.replace('zoneinfo.ZoneInfo("Asia/Shanghai")', "timezone(timedelta(hours=8))")
    result = SandboxedFunction(source, "f", without=without)()
    assert result == {
        "parsed": datetime(2024, 2, 29, 1, 2),
        "named": "February",
        "far": 8,
        "last": 29,
        "encoded": "文é",
        "sum": Decimal("0.3"),
        "hash": "2d71eA==",
        "found": ["1", "22"],
        "money": "1000",
        "csv": "a,1\r\n",
        "random": True,
        "day": {"day": date(2024, 1, 1), "names": ["a"]},
        "point": {"x": 1},
        "colour": 1,
        "mean": 2,
    }


def test_calls_from_many_threads_take_turns():
    function = SandboxedFunction("def f(x):\n    return x * 2\n", "f")
    results = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: function(n)})) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: 2 * n for n in range(16)}


def test_a_child_that_ended_is_replaced():
    function = SandboxedFunction(
        "import os\ncalls = 0\ndef f(end):\n    global calls\n    calls += 1\n"
        "    if end:\n        os._exit(3)\n    return calls\n",
        "f",
        SandboxSettings(allowed_modules=None),
    )
    assert [function(False), function(False)] == [1, 2]
    with pytest.raises(SandboxError, match="status 3"):
        function(True)
    assert function(False) == 1


def test_children_are_few_and_end_with_the_program():
    from byzerllm.sandbox.pool import MOST_CHILDREN, POOL

    functions = [SandboxedFunction(f"def f():\n    return {n}\n", "f") for n in range(MOST_CHILDREN + 2)]
    assert [function() for function in functions] == list(range(MOST_CHILDREN + 2))
    processes = [slot.child._process for slot in POOL._slots.values()]
    assert len(processes) == MOST_CHILDREN
    assert functions[0]() == 0
    POOL.close()
    assert all(process.returncode is not None for process in processes)


def test_what_starts_no_sandbox_is_told(tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module of that name' >&2\nexit 3\n")
    broken.chmod(0o755)
    for executable, message in (
        (str(broken), "status 3: no module of that name"),
        (str(tmp_path / "none"), "No such"),
    ):
        monkeypatch.setattr("sys.executable", executable)
        with pytest.raises(SandboxUnavailableError, match=message) as caught:
            SandboxedFunction("def f():\n    return 1\n", "f")()
        assert 'sandbox="none"' in str(caught.value)


def test_a_child_does_not_outlive_its_parent():
    program = """
import os, signal, threading, time
from byzerllm.sandbox import SandboxedFunction, SandboxSettings
from byzerllm.sandbox.pool import POOL
source = "def f():\\n    return 1\\ndef g():\\n    while True:\\n        pass\\n"
settings = SandboxSettings(time_limit=2)
SandboxedFunction(source, "f", settings)()
[slot] = POOL._slots.values()
print(slot.child._process.pid, flush=True)
threading.Thread(target=SandboxedFunction(source, "g", settings), daemon=True).start()
while not slot.lock.locked() or slot.child._requests < 3:
    time.sleep(0.001)
time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_program(program)
    assert done.returncode == -signal.SIGKILL, done.stderr
    status = Path(f"/proc/{done.stdout.strip()}/stat")
    end = time.monotonic() + PATIENCE
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "it runs for ever"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_children_of_its_own():
    function = SandboxedFunction("import random\nkept = random.random()\ndef f():\n    return kept\n", "f")
    before = function()
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.write(writing, str(function()).encode())
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(process, 0)[1] == 0
    assert float(os.read(reading, 100)) != before == function()
    os.close(reading)
    os.close(writing)


def test_a_child_is_replaced_before_its_processor_time_is_over(monkeypatch):
    from byzerllm.sandbox import child

    monkeypatch.setattr(child, "_LIFE", 1.005)
    function = SandboxedFunction(
        "import time\nkept = time.monotonic()\ndef f():\n    time.sleep(0.02)\n    return kept\n", "f"
    )
    assert len({function() for _ in range(10)}) > 1


def test_the_time_is_that_of_this_place(monkeypatch):
    function = SandboxedFunction(
        "import time\ndef f():\n    return time.strftime('%H %z', time.localtime(0))\n", "f"
    )
    assert function() == time.strftime("%H %z", time.localtime(0))
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    for without in ((), ("landlock", "namespace")):
        far = SandboxedFunction(f"{function.source}# {without}", "f", without=without)
        assert far() == "08 +0800"
