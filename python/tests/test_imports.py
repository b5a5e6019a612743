"""Importing the client is light."""

import json
import subprocess
import sys

import pytest

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
    "byzerllm.utils.client": """ByzerLLM LLMRequest LLMResponse LLMHistoryItem InferBackend Templates Template Role
    LLMFunctionCallResponse LLMClassResponse FintuneRequest FintuneRequestExtra ExecuteCodeResponse default_chat_wrapper
    EventName EventCallback EventCallbackResult LLMMetadata SimpleByzerLLM code_utils message_utils parallel_utils
    img_utils math_utils""",
    "byzerllm.utils": """function_calling_format response_class_format response_class_format_after_chat
    function_impl_format base_ability_format sys_response_class_format sys_function_calling_format
    sys_function_impl_format serialize_function_to_json FunctionCall FunctionCallWrapper FunctionCallList
    FUNCTION_CALLING_SCHEMA exec_capture_output generate_str_md5 generate_file_md5 generate_instruction_from_history
    compute_max_new_tokens tokenize_string tokenize_stopping_sequences tokenize_stopping_sequences_where_needed
    StopSequencesCriteria StreamOutputs SingleOutput SingleOutputMeta VLLMStreamServer BlockVLLMStreamServer print_flush
    timeit timeout TimeoutException load_json_str get_type_name is_annotated_type BlockBinaryStreamServer BaseAbility
    format_prompt_jinja2 format_str_jinja2 random_uuid""",
    "byzerllm.utils.retrieval": "ByzerRetrieval",
    "byzerllm.records": """ClusterSettings EnvSettings JVMSettings TableSettings SearchQuery ResourceRequirementSettings
    ResourceRequirement""",
    "byzerllm": """BlockRow restore_model load_model consume_model common_init_model parse_params check_param_exists
    log_to_file ByzerLLM SimpleByzerLLM ByzerRetrieval connect_cluster prompt prompt_lazy agent_reply Image MetaHolder
    MetaOutput get_model_info get_single_llm get_llm_names""",
    "byzerllm.apps.agent": "Agents ConversableAgent UserProxyAgent GroupChat",
    "byzerllm.apps.byzer_storage.simple_api": "ByzerStorage DataType FieldOption SortOption",
    "byzerllm.utils.openai_utils": "completion_with_retry async_completion_with_retry get_completion_endpoint",
    "byzerllm.store": "transfer_from_ob block_transfer_from_ob",
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
