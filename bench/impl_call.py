"""How long a cached implementation takes: the code runs again in its warm child at every call.

    python bench/impl_call.py [CALLS]

Measured with the installed package, through everything a program goes through: the arguments, the border, the code,
the border, the response class. No model is asked; the code is given by an event callback.
"""

import sys
import time
from datetime import datetime
from typing import Callable, List

try:
    import pydantic
    from byzerllm.sandbox import SandboxedFunction
    from byzerllm.utils.client import ByzerLLM, EventName
except ImportError as problem:
    sys.exit(f"{problem}; run this with the Python that has byzerllm and pydantic, for example .byzerllm/venv-test/bin/python")

TODAY = """from datetime import datetime

def calculate_current_time():
    return {"time": datetime.now().isoformat()}
"""
TOMORROW = """from datetime import datetime, timedelta

def add_one_day(current_day):
    return {"time": (current_day + timedelta(days=1)).strftime("%Y-%m-%d")}
"""


class Time(pydantic.BaseModel):
    """What both functions return."""

    time: str


def percentile(values: List[float], share: float) -> float:
    """The value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measured(name: str, call: Callable[[], object], calls: int) -> float:
    """Prints one line and returns the median in microseconds."""
    began = time.perf_counter()
    call()
    first = (time.perf_counter() - began) * 1e3
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e6)
    median = percentile(times, 0.5)
    print(f"{name:36} first {first:7.1f} ms   median {median:6.1f} us   p90 {percentile(times, 0.9):6.1f} us")
    return median


def main(calls: int) -> int:
    """Measures and says whether the goal is met."""
    answers = {"calculate_current_time": TODAY, "add_one_day": TOMORROW}
    llm = ByzerLLM().setup_default_model_name("chat")
    llm.setup_role_mapping("chat", {"user_role": "", "assistant_role": "", "system_msg": ""})

    def answer(_llm: object, _model: str, items: List[dict]) -> tuple:
        found = next(text for name, text in answers.items() if f'"name": "{name}"' in items[0]["instruction"])
        return False, [{"predict": found}]

    llm.add_event_callback(EventName.BEFORE_CALL_MODEL, answer)

    @llm.impl()
    def calculate_current_time() -> Time:
        """The current time."""

    @llm.impl()
    def add_one_day(current_day: datetime) -> Time:
        """The day after."""

    bare = SandboxedFunction("def f():\n    return 1\n", "f")
    day = datetime(2024, 2, 28)
    measured("a bare function in the sandbox", bare, calls)
    worst = max(
        measured("calculate_current_time()", calculate_current_time, calls),
        measured("add_one_day(datetime)", lambda: add_one_day(day), calls),
    )
    print(f"layers: {bare.layers()}")
    print(f"goal: a median of at most 300 us; {'met' if worst <= 300 else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
