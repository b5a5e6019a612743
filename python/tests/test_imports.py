"""Importing the client is light."""

import json
import subprocess
import sys

import pytest
from surface import IMPORTS

import byzerllm
from byzerllm.errors import UnsupportedError

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


# What programs of Byzer-LLM import, by module.
PATHS = {
    **IMPORTS,
    "byzerllm.utils.client.code_utils": "extract_code execute_code infer_lang get_value_from_llm_str",
    "byzerllm.utils.client.message_utils": "success_message is_success padding_messages_merge",
    "byzerllm.utils.client.parallel_utils": "chat_oai get_single_result",
}


@pytest.mark.parametrize("module", PATHS)
def test_every_name_imports(module):
    for name in PATHS[module].split():
        assert getattr(__import__(module, fromlist=[name]), name) is not None


def test_what_is_absent_says_so_when_it_is_used():
    from byzerllm.apps.agent import ConversableAgent
    from byzerllm.utils.retrieval import ByzerRetrieval

    def inherit():
        class Mine(ConversableAgent):
            pass

    assert "not supported" in repr(ByzerRetrieval) and "ByzerRetrieval" in ByzerRetrieval.__doc__
    for use in (
        lambda: ByzerRetrieval().launch_gateway(),
        lambda: ByzerRetrieval.launch_gateway,
        inherit,
        lambda: byzerllm.restore_model({}, "model"),
        lambda: byzerllm.connect_cluster(code_search_path=["/lib"]),
        lambda: isinstance(1, ByzerRetrieval),
    ):
        with pytest.raises(UnsupportedError, match="not supported by this version"):
            use()
    assert byzerllm.connect_cluster(address="auto") == {}
    with pytest.raises(ImportError, match="no_such_name"):
        from byzerllm.utils import no_such_name  # noqa: F401
