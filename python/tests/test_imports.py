"""Importing the client is light."""

import json
import subprocess
import sys

NAMES = "ByzerLLM, LLMRequest, LLMResponse, LLMHistoryItem, InferBackend, Templates"
HEAVY = {
    "ray",
    "torch",
    "numpy",
    "pydantic",
    "openai",
    "httpx",
    "transformers",
    "requests",
    "asyncio",
    "typing_extensions",
}

PROGRAM = f"""
import json, sys, time
started = time.perf_counter()
from byzerllm.utils.client import {NAMES}
elapsed = time.perf_counter() - started
print(json.dumps([sorted(sys.modules), elapsed]))
"""


def test_nothing_heavy_is_loaded(record_property):
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    ).stdout
    modules, elapsed = json.loads(output)
    record_property("import_seconds", elapsed)
    print(f"import of byzerllm.utils.client: {elapsed * 1000:.1f} ms")
    assert not HEAVY & {name.split(".")[0] for name in modules}
    assert "byzerllm._native" not in modules


def test_the_top_level_is_lazy_and_complete():
    program = (
        "import byzerllm, sys; assert 'byzerllm.client' not in sys.modules; byzerllm.ByzerLLM; dir(byzerllm)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
