"""Byzer-LLM's Python surface: every name that its programs may use, with a check that says whether it does here what it
did there. `test_compatibility.py` runs the checks and makes `docs/compatibility.md` of them.

A row is a name and an expression that is true when the name works; a third part says how it differs. An expression that
raises `UnsupportedError` for this version says that the name is not there yet. `has` compares a signature, `llm` is a fresh
client, and `chat` a tiny model that is deployed.
"""

# Where programs import names from, and what they import.
IMPORTS = {
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
    "byzerllm.utils.types": "SingleOutput SingleOutputMeta StreamOutputs VLLMStreamServer BlockVLLMStreamServer",
    "byzerllm.utils.nontext": "Image Audio Tag TagExtractor",
    "byzerllm.utils.retrieval": "ByzerRetrieval",
    "byzerllm.utils.openai_utils": "completion_with_retry async_completion_with_retry get_completion_endpoint",
    "byzerllm.utils.ray_utils": "cancel_placement_group get_actor_info",
    "byzerllm.utils.client.ray_utils": "cancel_placement_group get_actor_info",
    "byzerllm.utils.client.entrypoints.openai.api_server": "main",
    "byzerllm.utils.client.entrypoints.openai.protocol": "ChatCompletionRequest ChatCompletionResponse ModelList UsageInfo",
    "byzerllm.records": """ClusterSettings EnvSettings JVMSettings TableSettings SearchQuery ResourceRequirementSettings
    ResourceRequirement""",
    "byzerllm": """BlockRow restore_model load_model consume_model common_init_model parse_params check_param_exists
    log_to_file ByzerLLM SimpleByzerLLM ByzerRetrieval connect_cluster prompt prompt_lazy agent_reply Image MetaHolder
    MetaOutput get_model_info get_single_llm get_llm_names""",
    "byzerllm.utils.retrieval.rest": "deploy_retrieval_rest_server",
    "byzerllm.apps.agent.conversable_agent": "ConversableAgent",
    "byzerllm.apps.agent.user_proxy_agent": "UserProxyAgent",
    "byzerllm.apps.agent.groupchat": "GroupChat GroupChatManager",
    "byzerllm.apps.agent.store.memory_store": "MemoryStore",
    "byzerllm.apps.agent.extensions.data_analysis": "DataAnalysis",
    "byzerllm.apps.agent.extensions.python_codesandbox_agent": "PythonSandboxAgent",
    "byzerllm.apps.agent.extensions.simple_retrieval_client": "SimpleRetrievalClient",
    "byzerllm.apps.agent": "Agents ConversableAgent UserProxyAgent AssistantAgent CommonAgent GroupChat GroupChatManager",
    "byzerllm.apps.byzer_storage.simple_api": "ByzerStorage DataType FieldOption SortOption",
    "byzerllm.store": "transfer_from_ob block_transfer_from_ob",
}

_SETUP_FORMATS = [
    (f"setup_{name}", f"llm.setup_{name}('m', str) is llm and llm.mapping_{name}['m'] is str")
    for name in (
        "function_calling_format_func",
        "response_class_format_func",
        "response_class_format_after_chat_func",
        "impl_func_format_func",
        "sys_function_calling_format_func",
        "sys_response_class_format_func",
        "sys_response_class_format_after_chat_func",
        "sys_impl_func_format_func",
    )
]

_TRAINING = (
    "name, local_data_dir_path, local_model_path, local_stage_path, pretrained_model_type, num_cpus, num_gpus"
)

# Section → rows.
NAMES = {
    "Data types": [
        ("Role", "(Role.User, Role.Assistant, Role.System) == ('user', 'assistant', 'system')"),
        ("LLMHistoryItem", "LLMHistoryItem('user', 'x').content == 'x'"),
        (
            "LLMRequest",
            "has(LLMRequest, 'instruction, embedding=False, max_length=4096, top_p=0.95, temperature=0.1')",
        ),
        ("LLMResponse", "LLMResponse(output='x', input={}).metadata == {}"),
        (
            "LLMFunctionCallResponse",
            "LLMFunctionCallResponse(response=LLMResponse('x', {}), values=[1], metadata={'reason': ''}).values == [1]",
            "a dataclass instead of a pydantic class; `metadata` also holds `calls`",
        ),
        (
            "LLMClassResponse",
            "LLMClassResponse(response=LLMResponse('x', {}), value=1, metadata={'reason': ''}).value == 1",
            "a dataclass instead of a pydantic class; `metadata` also holds `attempts`",
        ),
        (
            "FintuneRequestExtra",
            "has(FintuneRequestExtra, 'max_seq_length=1024, num_train_epochs=1, logging_steps=100, save_steps=100')",
        ),
        ("FintuneRequest", "FintuneRequest('p', 't', 'd').extra_params.save_steps == 100"),
        ("ExecuteCodeResponse", "ExecuteCodeResponse(0, 'o', 'c', 'p').variables == {}"),
        ("InferBackend.Transformers", "InferBackend.Transformers == 'transformers'"),
        ("InferBackend.VLLM", "InferBackend.VLLM == 'ray/vllm'"),
        ("InferBackend.DeepSpeed", "InferBackend.DeepSpeed == 'ray/deepspeed'"),
        ("InferBackend.LLAMA_CPP", "InferBackend.LLAMA_CPP == 'llama_cpp'"),
        ("InferBackend.transformers", "InferBackend.transformers == InferBackend.Transformers"),
        (
            "InferBackend.vllm, .deepspeed",
            "(InferBackend.vllm, InferBackend.deepspeed) == ('ray/vllm', 'ray/deepspeed')",
        ),
        (
            "EventName",
            (
                "(EventName.BEFORE_CALL_MODEL.value, EventName.AFTER_CALL_MODEL.value) == "
                "('before_call_model', 'after_call_model')"
            ),
        ),
        (
            "LLMMetadata",
            "(LLMMetadata().context_window, LLMMetadata().model_name) == (8192, 'unknown')",
            "a dataclass",
        ),
        (
            "SingleOutputMeta",
            (
                "has(SingleOutputMeta, \"input_tokens_count=0, generated_tokens_count=0, reasoning_content='', "
                "finish_reason='', first_token_time=0.0\")"
            ),
        ),
        ("SingleOutput", "SingleOutput('x').metadata.input_tokens_count == 0"),
        ("StreamOutputs", "StreamOutputs([SingleOutput('x')]).outputs[0].text == 'x'"),
        ("Template", "Template({}, {}).clean_func('x') == 'x'"),
        ("FunctionCall", "utils.FunctionCall(name='f', arguments={'a': 1}).arguments == {'a': 1}"),
        (
            "FunctionCallWrapper",
            "utils.FunctionCallWrapper(function=utils.FunctionCall(name='f', arguments={})).function.name == 'f'",
        ),
        (
            "FunctionCallList",
            (
                "utils.FunctionCallList.parse_obj({'id': 'x', 'tool_calls': "
                "[{'function': {'name': 'f', 'arguments': {}}}]}).tool_calls[0].function.name == 'f'"
            ),
        ),
    ],
    "The client": [
        ("ByzerLLM()", "ByzerLLM().sys_conf['infer_backend'] == 'transformers'"),
        (
            "ByzerLLM(url)",
            "ByzerLLM('http://127.0.0.1:1').url == 'http://127.0.0.1:1'",
            "the URL of a server",
        ),
        ("ByzerLLM(verbose=True)", "ByzerLLM(verbose=True).verbose"),
        (
            "force_skip_context_length_check",
            "ByzerLLM(force_skip_context_length_check=True).force_skip_context_length_check",
        ),
        ("byzer_engine_url", "ByzerLLM(byzer_engine_url='http://x').byzer_engine_url == 'http://x'"),
        (
            "default_max_output_length",
            "ByzerLLM().default_max_output_length == 1024 and ByzerLLM(default_max_output_length=9).get_max_output_length('m') == 9",
        ),
        (
            "sys_conf",
            (
                "llm.sys_conf == {'pythonMode': 'ray', 'maxConcurrency': 1, 'num_gpus': 1, 'masterMaxConcurrency': 1000, "
                "'workerMaxConcurrency': 1, 'infer_backend': 'transformers'}"
            ),
        ),
        (
            "default_role_mapping",
            "(llm.default_role_mapping['user_role'], llm.default_role_mapping['assistant_role']) == ('User:', 'Assistant:')",
        ),
        (
            "default_model_name, default_emb_model_name, default_rerank_model_name",
            "(llm.default_model_name, llm.default_emb_model_name, llm.default_rerank_model_name) == (None, None, None)",
        ),
        (
            "mapping_*, meta_cache, func_impl_cache, event_callbacks, sub_clients",
            (
                "not any([llm.mapping_extra_generation_params, llm.mapping_role_mapping, llm.mapping_max_model_length, "
                "llm.mapping_max_input_length, llm.mapping_max_output_length, llm.mapping_clean_func, "
                "llm.mapping_auto_use_apply_chat_template, llm.mapping_base_system_message, llm.meta_cache, "
                "llm.func_impl_cache, llm.event_callbacks, llm.sub_clients])"
            ),
        ),
        (
            "context, ray_context",
            "llm.context.conf is llm.sys_conf and llm.ray_context is None",
            "there is no Ray context",
        ),
        ("get_meta replaced on an instance", "replaced_meta(llm)"),
    ],
    "Settings": [
        ("setup_reset", "llm.setup('x', 1).setup_reset() is None and 'x' not in llm.sys_conf"),
        (
            "setup",
            "llm.setup('resource.X', 1) is llm and llm.sys_conf['resource.X'] == 1",
            "what has no effect is told by deploy",
        ),
        ("setup_default_model_name", "llm.setup_default_model_name('m').default_model_name == 'm'"),
        (
            "setup_default_emb_model_name",
            "llm.setup_default_emb_model_name('m').default_emb_model_name == 'm'",
        ),
        (
            "setup_default_re_rank_model_name",
            "llm.setup_default_re_rank_model_name('m').default_rerank_model_name == 'm'",
        ),
        (
            "setup_infer_backend",
            (
                "llm.setup_infer_backend('ray/vllm').sys_conf['workerMaxConcurrency'] == 100 and "
                "llm.setup_infer_backend('transformers').sys_conf['workerMaxConcurrency'] == 1"
            ),
            "a label: every backend is our engine",
        ),
        (
            "setup_gpus_per_worker",
            "llm.setup_gpus_per_worker(0.4).sys_conf['num_gpus'] == 0.4",
            "told by deploy as without effect",
        ),
        (
            "setup_cpus_per_worker",
            "llm.setup_cpus_per_worker(0.01).sys_conf['num_cpus'] == 0.01",
            "told by deploy as without effect",
        ),
        ("setup_worker_concurrency", "llm.setup_worker_concurrency(3).sys_conf['workerMaxConcurrency'] == 3"),
        (
            "setup_num_workers",
            "llm.setup_num_workers(3).sys_conf['maxConcurrency'] == 3",
            "times the concurrency a limit; weights are loaded once",
        ),
        (
            "setup_load_balance_way",
            "llm.setup_load_balance_way('round_robin').sys_conf['load_balance'] == 'round_robin'",
            "there is one worker",
        ),
        (
            "setup_pin_model_worker_mapping",
            "llm.setup_pin_model_worker_mapping({'meta': 0}).pin_model_worker_mapping == {'meta': 0}",
            "there is one worker",
        ),
        ("setup_max_model_length", "llm.setup_max_model_length('m', 9).get_max_model_length('m') == 9"),
        ("setup_max_input_length", "llm.setup_max_input_length('m', 9).get_max_input_length('m') == 9"),
        ("setup_max_output_length", "llm.setup_max_output_length('m', 9).get_max_output_length('m') == 9"),
        (
            "setup_role_mapping",
            "llm.setup_role_mapping('m', {'user_role': 'Q:'}).mapping_role_mapping['m']['user_role'] == 'Q:'",
        ),
        (
            "setup_extra_generation_params",
            (
                "llm.setup_extra_generation_params('m', {'a': 1, 'b': 1}).setup_extra_generation_params('m', {'b': 2})"
                ".mapping_extra_generation_params['m'] == {'a': 1, 'b': 2}"
            ),
        ),
        (
            "setup_template",
            "llm.setup_template('m', Templates.qwen()) is llm and llm.setup_template(chat, 'auto') is llm",
        ),
        *_SETUP_FORMATS,
        (
            "setup_base_system_messages",
            "llm.setup_base_system_messages('m', 'be kind').mapping_base_system_message['m'] == 'be kind'",
        ),
        (
            "setup_sub_client, get_sub_client, remove_sub_client",
            "llm.setup_sub_client('x', 1).get_sub_client('x') == 1 and llm.remove_sub_client('x').get_sub_client('x') is None",
        ),
        (
            "add_event_callback",
            "llm.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *a: (True, None)) is None",
        ),
    ],
    "Chat templates": [
        (
            "Templates.qwen",
            "rendered(llm, Templates.qwen()) == '<|im_start|>user\\n你好\\n<|im_end|>\\n<|im_start|>assistant\\n'",
        ),
        (
            "Templates.yi",
            "rendered(llm, Templates.yi()) == '<|im_start|>user\\n你好\\n<|im_end|>\\n<|im_start|>assistant\\n'",
        ),
        ("Templates.llama", "rendered(llm, Templates.llama()) == '<s>[INST] 你好 [/INST]\\n'"),
        (
            "Templates.deepseek_code_chat",
            "rendered(llm, Templates.deepseek_code_chat()) == '### Instruction:\\n你好\\n### Response:\\n'",
        ),
        (
            "Templates.deepseek_code_insertion",
            "raises(Exception, lambda: rendered(llm, Templates.deepseek_code_insertion(), True))",
        ),
        (
            "Templates.deepseek_code_completion",
            "rendered(llm, Templates.deepseek_code_completion()) == '\\n'",
        ),
        ("Templates.default", "rendered(llm, Templates.default()) == 'User:你好\\nAssistant:'"),
        ("Templates.empty", "rendered(llm, Templates.empty()) == '你好\\n'"),
        ("Templates.default_format", "Templates.default_format('a', 'b') == 'ab'"),
        (
            "generate_instruction_from_history",
            (
                "has(ByzerLLM.generate_instruction_from_history, 'model, conversations, role_mapping') and "
                "rendered(llm, Templates.default()) == 'User:你好\\nAssistant:'"
            ),
        ),
        (
            "byzerllm.utils.generate_instruction_from_history",
            "utils.generate_instruction_from_history('b', [{'role': 'user', 'content': 'a'}]) == 'User:a\\nUser:b\\nAssistant:'",
        ),
    ],
    "Chats": [
        (
            "chat_oai",
            (
                "has(ByzerLLM.chat_oai, 'conversations, tools=[], tool_choice=None, execute_tool=False, impl_func=None, "
                "execute_impl_func=False, impl_func_params=None, func_params=None, response_class=None, "
                "response_after_chat=False, enable_default_sys_message=False, model=None, role_mapping=None, llm_config={}') "
                "and isinstance(llm.chat_oai(says('hi'), model=chat, llm_config=short)[0].output, str)"
            ),
        ),
        ("chat_oai(a string)", "isinstance(llm.chat_oai('hi', model=chat, llm_config=short)[0].output, str)"),
        (
            "chat_oai(only_return_prompt=True)",
            "llm.chat_oai('hi', model=chat, only_return_prompt=True)[0].output == ''",
        ),
        (
            "metadata of responses",
            (
                "{'request_id', 'input_tokens_count', 'generated_tokens_count', 'time_cost', 'first_token_time', 'speed', 'prob'} "
                "<= set(llm.chat_oai('hi', model=chat, llm_config=short)[0].metadata)"
            ),
            "times are milliseconds everywhere",
        ),
        (
            "async_chat_oai",
            "isinstance(asyncio.run(llm.async_chat_oai('hi', model=chat, llm_config=short))[0].output, str)",
            "new",
        ),
        (
            "chat_oai(tools=…, execute_tool=True)",
            "llm.chat_oai('1+1', tools=[add], tool_choice=add, execute_tool=True, model=chat, llm_config=long)[0].response.output",
        ),
        (
            "chat_oai(response_class=…)",
            "llm.chat_oai('a story', response_class=Word, model=chat, llm_config=long)[0].response.output",
        ),
        (
            "chat_oai(impl_func=…, execute_impl_func=True)",
            (
                "hasattr(llm.chat_oai('x', impl_func=add, response_class=Word, execute_impl_func=True, impl_func_params={}, "
                "model=chat, llm_config=long)[0], 'value')"
            ),
        ),
        (
            "stream_chat_oai",
            (
                "has(ByzerLLM.stream_chat_oai, 'conversations, model=None, role_mapping=None') and "
                "[text for text, meta in llm.stream_chat_oai('hi', model=chat, llm_config=short)]"
            ),
        ),
        (
            'for line in stream: line + "\\n"',
            "all(line + '\\n' for line in llm.stream_chat_oai('hi', model=chat, llm_config=short))",
        ),
        (
            "stream_chat_oai(delta_mode=True)",
            "list(llm.stream_chat_oai('hi', model=chat, delta_mode=True, llm_config=short))",
        ),
        (
            "async_stream_chat_oai",
            (
                "has(ByzerLLM.async_stream_chat_oai, 'conversations, role_mapping=None, model=None') and "
                "asyncio.run(listed(llm.async_stream_chat_oai('hi', model=chat, llm_config=short)))"
            ),
            "never blocks the loop",
        ),
        (
            "abort",
            "has(ByzerLLM.abort, 'request_id, model=None') and llm.abort('x', chat) is False",
            "ends streams of this process, on every backend",
        ),
        (
            "chat",
            "has(ByzerLLM.chat, 'model, request, extract_params={}') and llm.chat(chat, LLMRequest(instruction='hi', max_length=2))[0].output is not None",
        ),
        (
            "chat with several instructions",
            "len(llm.chat(chat, LLMRequest(instruction=['a', 'b'], max_length=2))) == 2",
        ),
        ("raw_chat", "llm.raw_chat(chat, 'hi', {'max_length': 2})[0].output is not None"),
        (
            "default_chat_wrapper",
            "default_chat_wrapper(llm.setup_default_model_name(chat), says('hi'), short)[0].output is not None",
        ),
        (
            "generation keys: bare, gen.*, generation.*",
            "parameters.generation({'gen.top_k': 1, 'generation.top_p': '0.5', 'temperature': 0}).sampling == {'top_k': 1, 'top_p': 0.5, 'temperature': 0.0}",
        ),
        (
            "unknown generation keys",
            (
                "raises(InvalidRequestError, lambda: llm.chat_oai('x', model=chat, llm_config={'gen.temprature': 1})) and "
                "ByzerLLM(ignore_unknown=True).chat_oai('x', model=chat, llm_config={'gen.temprature': 1, 'max_length': 2})"
            ),
            "an error that names the nearest key; `ignore_unknown=True` drops them as before",
        ),
    ],
    "Functions, classes and implementations": [
        (
            "serialize_function_to_json",
            "list(json.loads(utils.serialize_function_to_json(add))['parameters']['properties']) == ['a', 'b']",
        ),
        ("function_calling_format", "'hi' in utils.function_calling_format('hi', [add], None)"),
        ("response_class_format", "'hi' in utils.response_class_format('hi', Word)"),
        ("response_class_format_after_chat", "'word' in utils.response_class_format_after_chat(Word)"),
        ("function_impl_format", "'hi' in utils.function_impl_format('hi', add, Word)"),
        ("base_ability_format", "'FUNCTION_CALLING' in utils.base_ability_format()"),
        ("sys_function_calling_format", "'hi' in utils.sys_function_calling_format('hi', [add], None)"),
        ("sys_response_class_format", "'hi' in utils.sys_response_class_format('hi', Word)"),
        ("sys_function_impl_format", "'hi' in utils.sys_function_impl_format('hi', add, Word)"),
        ("FUNCTION_CALLING_SCHEMA", "'tool_calls' in str(utils.FUNCTION_CALLING_SCHEMA) + ''"),
        (
            "BaseAbility",
            "{'FUNCTION_CALLING', 'RESPONSE_WITH_CLASS', 'FUNCTION_IMPL'} <= set(utils.BaseAbility.__members__)",
        ),
        (
            "execute_function_calling",
            "llm.execute_function_calling(LLMResponse(CALL, {}), [add], None).values == [3]",
            "checks arguments, reads every JSON block, tells unknown names, and goes on after a function that fails",
        ),
        (
            "execute_response_format",
            "llm.execute_response_format(LLMResponse('{\"word\": \"x\"}', {}), Word).value.word == 'x'",
        ),
        (
            "@llm.response()",
            "has(ByzerLLM.response, 'instruction=None, model=None, verbose=None') and callable(llm.response(model=chat))",
        ),
        (
            "@llm.impl()",
            (
                "callable(llm.impl(model=chat)(impl_me)) and "
                "has(ByzerLLM.impl, 'instruction=None, model=None, verbose=None, skip_cache=False')"
            ),
            "runs in a sandbox",
        ),
        (
            "execute_generate_func",
            "llm.execute_generate_func('f', {}, LLMResponse('def f():\\n    return {\"word\": \"x\"}', {}), Word).value.word == 'x'",
            "runs in a sandbox",
        ),
        (
            "clear_impl_cache",
            "llm.clear_impl_cache() in (None, llm) and raises(Exception, lambda: llm.clear_impl_cache(model='m', full_func_name='f'))",
        ),
    ],
    "Embeddings and reranking": [
        (
            "emb",
            (
                "has(ByzerLLM.emb, 'model, request, extract_params={}') and llm.deploy(embedder, 'custom/bge', 'emb', {}) "
                "and len(llm.emb('emb', LLMRequest('wow'))[0].output) == 32"
            ),
            "a text that is too long is an error unless `truncate` allows the cut",
        ),
        (
            "emb_query",
            (
                "has(ByzerLLM.emb_query, 'v, model=None') and llm.deploy(embedder, 'custom/m3e', 'emb', {}) "
                "and len(llm.emb_query('wow', 'emb')[0].output) == 32"
            ),
        ),
        (
            "emb_rerank",
            (
                "has(ByzerLLM.emb_rerank, 'model=None, sentence_pairs=[], extract_params={}') "
                "and llm.deploy(reranker, 'custom/bge_rerank', 'rr', {}) "
                "and llm.emb_rerank('rr', ['a', 'b'])[0].output[0] == ['a', 'b']"
            ),
            "`metadata` says the scale; too long is an error unless `truncate` allows the cut",
        ),
    ],
    "Tokens, templates, meta": [
        (
            "tokenize",
            "has(ByzerLLM.tokenize, 'model, s, llm_config={}') and isinstance(llm.tokenize(chat, 'hi')[0].output[0][0], int)",
        ),
        (
            "apply_chat_template",
            (
                "has(ByzerLLM.apply_chat_template, 'model, s, llm_config={}') and "
                "llm.apply_chat_template(chat, json.dumps(says('hi'))).endswith('<|im_start|>assistant\\n')"
            ),
            "ends with what the assistant begins with",
        ),
        (
            "get_meta",
            (
                "list(llm.get_meta(model=chat)) == ['model_deploy_type', 'backend', 'support_stream', 'support_chat_template', "
                "'max_model_len', 'architectures', 'engine']"
            ),
            "`engine` is new; never stale",
        ),
        (
            "get_meta() of the default model",
            "llm.setup_default_model_name(chat).get_meta()['engine'] == 'byzerllm'",
        ),
        ("require_template", "llm.require_template(chat) is False"),
        ("metadata", "llm.setup_default_model_name(chat).metadata.context_window == 8192"),
        ("from_default_model", "ByzerLLM.from_default_model(chat).default_model_name == chat"),
        (
            "get_max_model_length, get_max_input_length",
            "(llm.get_max_model_length('m'), llm.get_max_input_length('m')) == (None, None)",
        ),
        ("get_max_output_length", "llm.get_max_output_length('m') == 1024"),
    ],
    "Deployments": [
        (
            "deploy",
            (
                "has(ByzerLLM.deploy, 'model_path, pretrained_model_type, udf_name, infer_params') and "
                "llm.deploy(checkpoint, 'custom/auto', 'other', {})['backend'] == 'transformers'"
            ),
            "returns the meta; runs on our engine",
        ),
        ("undeploy", "has(ByzerLLM.undeploy, 'udf_name, force=False') and llm.undeploy('nobody') is None"),
        ("is_model_exist", "llm.is_model_exist(chat) and not llm.is_model_exist('nobody')"),
        (
            'pretrained_model_type="custom/llama2", "custom/qwen" and the other types that chat',
            "llm.deploy(checkpoint, 'custom/qwen', 'other', {})['backend'] == 'transformers'",
            "a type that contradicts the checkpoint is an error that says what to write",
        ),
        (
            'pretrained_model_type="saas/…"',
            "llm.deploy('', 'saas/openai', 'x', {'saas.api_key': 'k', 'saas.model': 'm'})",
        ),
        (
            'pretrained_model_type="custom/bge", "custom/m3e"',
            "llm.deploy(embedder, 'custom/bge', 'emb', {})['embedding_mode'] is True",
        ),
        (
            'pretrained_model_type="custom/bge_rerank"',
            "llm.deploy(reranker, 'custom/bge_rerank', 'rr', {})['task'] == 'rerank'",
        ),
        (
            'pretrained_model_type="custom/qwen_vl_chat"',
            "llm.deploy(checkpoint, 'custom/qwen_vl_chat', 'x', {})",
        ),
        (
            'pretrained_model_type="custom/stable_diffusion"',
            "llm.deploy(checkpoint, 'custom/stable_diffusion', 'x', {})",
        ),
        (
            "quatization, quantization",
            "llm.deploy(checkpoint, 'custom/auto', 'other', {'quatization': '8'})['backend'] == 'transformers'",
            "4 and 8 bits on the CPU; `true` is 4; anything else is an error",
        ),
        (
            "backend.quantization",
            "llm.deploy(awq, 'custom/auto', 'awq', {'backend.quantization': 'AWQ'})['backend']",
            "`GPTQ` and `AWQ` must be what the checkpoint is",
        ),
        (
            "backend.*",
            "llm.deploy(checkpoint, 'custom/auto', 'other', {'backend.max_model_len': '64'})['max_model_len'] == 64",
            "without effect where our engine decides itself, and told so",
        ),
    ],
    "Training": [
        (
            "sft",
            f"has(ByzerLLM.sft, 'sft_{_TRAINING}, detached=True, json_config=\"{{}}\"') and llm.sft('n', 'd', 'm', 's', 't', 1, 1)",
        ),
        (
            "pretrain",
            f"has(ByzerLLM.pretrain, '{_TRAINING}, detached=True, json_config=\"{{}}\"') and llm.pretrain('n', 'd', 'm', 's', 't', 1, 1)",
        ),
        (
            "merge_lora",
            "has(ByzerLLM.merge_lora, 'name, local_model_path, local_adpator_model_path, local_target_path') and llm.merge_lora('n', 'm', 'a', 't')",
        ),
        ("raw_sft", "has(ByzerLLM.raw_sft, 'train_params, sys_conf={}') and llm.raw_sft({})"),
        ("raw_pretrain", "has(ByzerLLM.raw_pretrain, 'train_params, sys_conf={}') and llm.raw_pretrain({})"),
        (
            "raw_merge_lora",
            "has(ByzerLLM.raw_merge_lora, 'train_params, sys_conf') and llm.raw_merge_lora({}, {})",
        ),
        (
            "raw_deepspeed_to_huggingface",
            "has(ByzerLLM.raw_deepspeed_to_huggingface, 'train_params') and llm.raw_deepspeed_to_huggingface({})",
        ),
    ],
    "SQL": [
        (
            "apply_sql_func",
            (
                "has(ByzerLLM.apply_sql_func, \"sql, data, owner='admin', url='http://127.0.0.1:9003/model/predict'\") and "
                "raises(UnavailableError, lambda: llm.apply_sql_func('select 1', [], url='http://127.0.0.1:1'))"
            ),
        ),
        (
            "_rest_byzer_script",
            (
                "has(ByzerLLM._rest_byzer_script, \"sql, owner, url='http://127.0.0.1:9003/run/script'\") and "
                "raises(UnavailableError, lambda: llm._rest_byzer_script('x', 'me', 'http://127.0.0.1:1'))"
            ),
        ),
    ],
    "Requests": [
        (
            "_query",
            (
                "has(ByzerLLM._query, 'model, input_value') and [one['predict'] for one in llm._query(chat, "
                "[{'instruction': 'hi', 'tokenizer': True}, {'instruction': '', 'meta': True}])] == "
                "[llm.tokenize(chat, 'hi')[0].output, [llm.get_meta(chat)]]"
            ),
            "no stream server: use `stream_chat_oai`",
        ),
        ("a model that is not deployed", "raises(ValueError, lambda: llm.chat_oai('hi', model='nobody'))"),
        ("no model named", "raises(Exception, lambda: llm.chat_oai('hi'), 'setup_default_model_name')"),
        (
            "max_length",
            "llm.chat_oai('hi', model=chat, llm_config={'max_length': 2})[0].metadata['generated_tokens_count'] <= 2",
            "new tokens on every backend",
        ),
        ("event callbacks", "answered_by_callback(llm, chat)"),
        (
            "gen.abort in a request",
            "llm._query(chat, [{'instruction': 'x', 'gen.request_id': 'x', 'gen.abort': True}])[0]['predict'] == ''",
        ),
        ("gen.request_id", "llm.chat_oai('x', model=chat, llm_config={'gen.request_id': 'x'})"),
        ('llm_config={"image": …}', "llm.chat_oai('x', model=chat, llm_config={'image': 'x'})"),
    ],
    "Prompt functions": [
        ("@byzerllm.prompt()", "byzerllm.prompt()(greet)('you') == 'Hello, you!'"),
        ("@byzerllm.prompt(…).prompt()", "byzerllm.prompt()(greet).prompt('you') == 'Hello, you!'"),
        (
            "@byzerllm.prompt(llm=…)",
            "isinstance(byzerllm.prompt(llm=llm.setup_default_model_name(chat), options={'llm_config': short})(greet)('you'), str)",
        ),
        ("@byzerllm.prompt_lazy()", "isinstance(byzerllm.prompt_lazy()(greet)('you').prompt(), str)"),
        (
            "llm.prompt()",
            "has(ByzerLLM.prompt, \"model=None, render='jinja2', check_result=False, options={}\") and isinstance(llm.prompt(chat, options={'llm_config': short})(greet)('you'), str)",
        ),
        (
            "MetaHolder, MetaOutput",
            "byzerllm.MetaHolder().get_meta_model is not None and byzerllm.MetaOutput.__name__ == 'MetaOutput'",
        ),
        ("format_str_jinja2", "utils.format_str_jinja2('a {{ x }}', x=1) == 'a 1'"),
        ("format_prompt_jinja2", "utils.format_prompt_jinja2(greet, name='you').strip() == 'Hello, you!'"),
    ],
    "SimpleByzerLLM": [
        ("SimpleByzerLLM()", "byzerllm.SimpleByzerLLM().default_model_name == 'deepseek_chat'"),
        (
            "deploy, get_meta, is_model_exist, undeploy",
            "simple_deployment(byzerllm.SimpleByzerLLM())",
        ),
        (
            "deploy without a key",
            "raises(ValueError, lambda: byzerllm.SimpleByzerLLM().deploy('', 'saas/openai', 'x', {}))",
        ),
        (
            "chat_oai, stream_chat_oai, async_stream_chat_oai, emb, emb_query, prompt, abort, metadata, setup_*, from_default_model",
            (
                "all(hasattr(byzerllm.SimpleByzerLLM, name) for name in 'chat_oai stream_chat_oai async_stream_chat_oai emb emb_query "
                "prompt abort metadata setup_default_model_name setup_sub_client get_sub_client remove_sub_client "
                "add_event_callback from_default_model'.split())"
            ),
        ),
        (
            "get_model_info",
            "byzerllm.get_model_info('deepseek_chat', 'lite')['model_name'] == 'deepseek-chat'",
            "a short built-in table",
        ),
        ("get_single_llm", "byzerllm.get_single_llm(chat, 'pro').default_model_name == chat"),
        ("get_llm_names", "byzerllm.get_llm_names(llm.setup_default_model_name('a')) == ['a']"),
    ],
    "Ray": [
        (
            'import ray; ray.init(address="auto")',
            "stand_in.init(address='auto', namespace='default', ignore_reinit_error=True) and stand_in.is_initialized()",
            "under `byzerllm run`; Ray itself where a cluster answers",
        ),
        (
            "ray.shutdown()",
            "stand_in.shutdown() is None and not stand_in.is_initialized()",
            "under `byzerllm run`",
        ),
        ("ray.remote, ray.get_actor, …", "stand_in_module.remote(add)"),
        (
            "byzerllm.connect_cluster",
            "has(byzerllm.connect_cluster, \"address='auto', java_home=None, code_search_path=None, init_options={}\") and byzerllm.connect_cluster() == {}",
            "there is nothing to connect to unless a cluster answers",
        ),
    ],
    "Helper modules": [
        ("code_utils.extract_code", "code_utils.extract_code('```python\\n1\\n```') == [('python', '1')]"),
        ("code_utils.infer_lang", "code_utils.infer_lang('pip install x') == 'sh'"),
        ("code_utils.content_str", "code_utils.content_str('x') == 'x'"),
        (
            "code_utils.check_target_codes_exists, get_target_codes",
            "code_utils.check_target_codes_exists([('python', '1')], ['python']) and code_utils.get_target_codes([('a', '1')], ['b']) == []",
        ),
        ("code_utils.get_value_from_llm_str", "code_utils.get_value_from_llm_str('{\"a\": 1}', 'a', 0) == 1"),
        (
            "code_utils.execute_code",
            "code_utils.execute_code('print(1)') == (0, '1\\n', None)",
            "without Docker",
        ),
        (
            "code_utils.eval_function_completions",
            "code_utils.eval_function_completions(['    return 1'], 'def f():\\n', assertions='assert f() == 1')['succeed_assertions']",
            "no model writes assertions",
        ),
        (
            "code_utils.CODE_BLOCK_PATTERN, UNKNOWN, TIMEOUT_MSG, DEFAULT_TIMEOUT, DEFAULT_MODEL",
            "(code_utils.UNKNOWN, code_utils.DEFAULT_MODEL, code_utils.DEFAULT_TIMEOUT) == ('unknown', 'chat', 600)",
        ),
        (
            "message_utils.termindate_message, un_termindate_message",
            "message_utils.termindate_message({})['metadata']['TERMINATE'] and not message_utils.un_termindate_message({})['metadata']['TERMINATE']",
        ),
        (
            "message_utils.success_message, fail_message, is_success",
            "message_utils.is_success(message_utils.success_message({})) and not message_utils.is_success(message_utils.fail_message({}))",
        ),
        (
            "message_utils.copy_error_count, get_error_count, inc_error_count, check_error_count",
            "message_utils.get_error_count(message_utils.copy_error_count(message_utils.inc_error_count({}), {})) == 1 and not message_utils.check_error_count({})",
        ),
        (
            "message_utils.padding_messages_merge",
            "[m['content'] for m in message_utils.padding_messages_merge(says('a', 'b'))] == ['a\\nb']",
        ),
        (
            "message_utils.padding_messages_expand",
            "[m['content'] for m in message_utils.padding_messages_expand(says('a', 'b'))] == ['a', 'continue', 'b']",
        ),
        (
            "parallel_utils.chat_oai, get_single_result",
            "parallel_utils.get_single_result(parallel_utils.chat_oai(llm, 2, conversations='hi', model=chat, llm_config=short)) is not None",
            "one failure of several is no failure",
        ),
        (
            "img_utils.get_image_data",
            "img_utils.get_image_data('data:image/png;base64,eA==', use_b64=False) == b'x'",
        ),
        (
            "img_utils.llava_formater, gpt4v_formatter, extract_img_paths",
            "img_utils.llava_formater('x') == ('x', []) and img_utils.gpt4v_formatter('x') == [{'type': 'text', 'text': 'x'}] and img_utils.extract_img_paths('a.png') == ['a.png']",
        ),
        (
            "img_utils.convert_base64_to_data_uri",
            "img_utils.convert_base64_to_data_uri('/9j/') == 'data:image/jpeg;base64,/9j/'",
        ),
        (
            "math_utils.solve_problem",
            "isinstance(math_utils.solve_problem('1+1', llm=llm, model=chat, llm_config=short), str)",
            "takes `llm=`",
        ),
        (
            "math_utils.is_equiv, eval_math_responses, …",
            "math_utils.is_equiv('1/2', '0.5') and math_utils.eval_math_responses(['\\\\boxed{1}'], '\\\\boxed{1}')['success']",
        ),
        ("nontext.Image", "Image('<_image_>x</_image_>').has_image() and Image('x').to_content() == 'x'"),
        ("nontext.Audio", "Audio('<_audio_>x</_audio_>').has_audio() and Audio('x').to_content() == 'x'"),
        (
            "nontext.Tag, TagExtractor",
            "TagExtractor('<_a_>1</_a_>').extract().content[0].content == '1'",
            "tags that are not closed are an error",
        ),
        (
            "exec_capture_output",
            "utils.exec_capture_output('x = 1\\nprint(x)', {'x': True}) == (0, '1\\n', {'x': 1})",
            "restores the output after a failure",
        ),
        ("generate_str_md5, generate_file_md5", "len(utils.generate_str_md5('x')) == 32"),
        ("compute_max_new_tokens", "utils.compute_max_new_tokens([[1, 2]], 5) == 3"),
        (
            "timeit, timeout, TimeoutException",
            "utils.timeout(9)(lambda: 1)() == 1 and issubclass(utils.TimeoutException, Exception)",
        ),
        (
            "load_json_str, get_type_name, is_annotated_type",
            "utils.load_json_str('1') == 1 and utils.get_type_name(int) == 'int' and not utils.is_annotated_type(int)",
        ),
        (
            "VLLMStreamServer, BlockVLLMStreamServer, BlockBinaryStreamServer",
            "utils.BlockVLLMStreamServer().get_item('x') is None",
            "plain objects, no actors",
        ),
        (
            "openai_utils.completion_with_retry, async_completion_with_retry, get_completion_endpoint",
            (
                "has(openai_utils.completion_with_retry, 'is_chat_model') and "
                "openai_utils.get_completion_endpoint(True).create"
            ),
            "around openai 1 and newer",
        ),
        (
            "byzerllm.records",
            "records.ClusterSettings.from_json(records.ClusterSettings('n', 'l', 1).json()).numNodes == 1",
        ),
        (
            "byzerllm.parse_params, check_param_exists, log_to_file, BlockRow",
            "byzerllm.parse_params({'infer.bool.x': 'true'}, 'infer') == {'x': True}",
        ),
    ],
}
