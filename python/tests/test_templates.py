"""The exact prompts of Byzer-LLM's templates."""

import types

import pytest

from byzerllm.errors import InvalidRequestError
from byzerllm.templates import generate_instruction_from_history, render
from byzerllm.utils.client import ByzerLLM, Template, Templates

HELLO = [{"role": "user", "content": "你好"}]
TALK = [
    {"role": "system", "content": "be {brief}"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.fixture
def llm():
    client = ByzerLLM()
    client.get_meta = types.MethodType(lambda self, model, llm_config={}: {}, client)
    return client


def prompt(llm, conversation, template=None):
    if template is not None:
        llm.setup_template("chat", template)
    mapping = llm.mapping_role_mapping.get("chat", llm.default_role_mapping)
    return llm.generate_instruction_from_history("chat", conversation, mapping)


def test_qwen(llm):
    expected = "<|im_start|>user\n你好\n<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(llm, HELLO, Templates.qwen()) == expected


def test_llama(llm):
    assert prompt(llm, HELLO, Templates.llama()) == "<s>[INST] 你好 [/INST]\n"


def test_default(llm):
    assert prompt(llm, HELLO) == "User:你好\nAssistant:"
    assert prompt(llm, HELLO, Templates.default()) == "User:你好\nAssistant:"


def test_default_with_system_message(llm):
    conversation = [{"role": "system", "content": "you are a help full assistant"}, *HELLO]
    assert prompt(llm, conversation) == "you are a help full assistant\nUser:你好\nAssistant:"


def test_qwen_with_system_message(llm):
    conversation = [{"role": "system", "content": "you are a help full assistant"}, *HELLO]
    assert prompt(llm, conversation, Templates.qwen()) == (
        "<|im_start|>system\nyou are a help full assistant<|im_end|>\n"
        "<|im_start|>user\n你好\n<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            Templates.qwen(),
            (
                "<|im_start|>system\nbe {brief}<|im_end|>\n<|im_start|>user\none\n"
                "<|im_end|>\n<|im_start|>assistant\ntwo\n<|im_start|>user\nthree\n<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            Templates.yi(),
            (
                "<|im_start|>system\nbe {brief}<|im_end|>\n<|im_start|>user\none\n"
                "<|im_end|>\n<|im_start|>assistant\ntwo\n<|im_start|>user\nthree\n<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            Templates.llama(),
            (
                "<s>[INST] <<SYS>>\nbe {brief}\n<</SYS>>\n[/INST]</s>\n"
                "<s>[INST] one [/INST]\n two </s>\n<s>[INST] three [/INST]\n"
            ),
        ),
        (
            Templates.deepseek_code_chat(),
            "be {brief}\n### Instruction:\none\n### Response:\ntwo\n<|EOT|>\n### Instruction:\nthree\n### Response:\n",
        ),
        (Templates.deepseek_code_completion(), "be {brief}\n\n\n\n"),
        (Templates.default(), "be {brief}\nUser:one\nAssistant:two\nUser:three\nAssistant:"),
        (Templates.empty(), "be {brief}\none\ntwo\nthree\n"),
    ],
)
def test_whole_conversations(template, expected):
    assert render(TALK, template.role_mapping) == expected


def test_insertion_needs_its_hole():
    mapping = Templates.deepseek_code_insertion().role_mapping
    code = "def f():\n<｜fim▁hole｜>\n    return 1"
    assert render([{"role": "system", "content": code}], mapping) == f"<｜fim▁begin｜>{code}<｜fim▁end｜>"
    with pytest.raises(InvalidRequestError, match="fim▁hole"):
        render([{"role": "system", "content": "def f(): ..."}], mapping)


def test_roles_without_a_rule_are_dropped_and_an_assistant_ends_the_prompt():
    conversation = [*HELLO, {"role": "tool", "content": "x"}, {"role": "assistant", "content": "Hi"}]
    assert render(conversation, Templates.default().role_mapping) == "User:你好\nAssistant:Hi"


def test_a_mapping_of_ones_own(llm):
    llm.setup_role_mapping("chat", {"user_role": "Q: ", "assistant_role": "A: ", "system_msg": ""})
    assert prompt(llm, HELLO) == "Q: 你好\nA: "


def test_generation_configs_and_cleaning():
    assert Templates.qwen().generation_config == {
        "generation.repetition_penalty": 1.1,
        "generation.stop_token_ids": [151643, 151645],
    }
    assert Templates.yi().generation_config == {"generation.stop_token_ids": [7]}
    assert Templates.deepseek_code_chat().generation_config == {"generation.stop_token_ids": [32021]}
    assert Templates.llama().generation_config == {}
    clean = Templates.qwen().clean_func
    assert clean("a<|im_end|>b") == clean("a<|endoftext|>b<|im_end|>") == clean("a<|im_start|>b") == "a"
    assert Templates.yi().clean_func("a<|im_end|>b") == "a<|im_end|>b"
    assert Templates.default_format("User:", "hi") == "User:hi"


def test_each_call_returns_a_fresh_template(llm):
    Templates.qwen().generation_config["generation.stop_token_ids"].append(1)
    Templates.qwen().role_mapping["user_role"] = "changed"
    assert Templates.qwen().generation_config["generation.stop_token_ids"] == [151643, 151645]
    assert Templates.qwen().role_mapping["user_role"] == "<|im_start|>user\n"
    assert Template({"user_role": ""}).generation_config == {}


def test_the_older_form_of_a_prompt():
    history = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    assert generate_instruction_from_history("c", history) == "S\nUser:a\nAssistant:b\nUser:c\nAssistant:"
    assert generate_instruction_from_history("", history) == "S\nUser:a\nAssistant:b\nAssistant:"
    assert generate_instruction_from_history("c", []) == "c"


def test_format_functions_are_the_built_in_ones_unless_given(llm):
    from byzerllm.utils import (
        function_calling_format,
        response_class_format,
        response_class_format_after_chat,
    )

    template = Templates.qwen()
    assert template.function_calling_format_func is function_calling_format
    assert template.response_class_format_func is response_class_format
    assert template.response_class_format_after_chat_func is response_class_format_after_chat
    llm.setup_template("chat", template)
    assert llm.mapping_function_calling_format_func == {}

    def mine(prompt, cls):
        return prompt

    template.response_class_format_func = mine
    assert template.response_class_format_func is mine
    llm.setup_template("chat", template)
    assert llm.mapping_response_class_format_func == {"chat": mine}
    template.response_class_format_func = None
    assert template.response_class_format_func is response_class_format
