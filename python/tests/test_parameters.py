"""How `llm_config`, `infer_params` and `pretrained_model_type` are read."""

import pytest

from byzerllm import families
from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.parameters import deployment, generation


@pytest.mark.parametrize(
    ("config", "sampling"),
    [
        (
            {"max_length": 12, "top_p": 0.5, "temperature": 0},
            {"max_tokens": 12, "top_p": 0.5, "temperature": 0.0},
        ),
        ({"gen.temperature": "0.25", "generation.top_p": "1"}, {"temperature": 0.25, "top_p": 1.0}),
        ({"generation.max_new_tokens": "7"}, {"max_tokens": 7}),
        ({"gen.max_tokens": 5, "generation.max_tokens": 6}, {"max_tokens": 6}),
        ({"generation.max_tokens": 6, "gen.max_tokens": 5}, {"max_tokens": 5}),
        ({"gen.top_k": -1}, {"top_k": 0}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"gen.seed": -1}, {}),
        ({"gen.seed": 42, "gen.min_p": 0.1}, {"seed": 42, "min_p": 0.1}),
        ({"generation.stop_token_ids": [7]}, {"stop_token_ids": [7]}),
        ({"generation.stop_token_ids": "7, 8"}, {"stop_token_ids": [7, 8]}),
        ({"generation.stop_token_ids": "[7, 8]"}, {"stop_token_ids": [7, 8]}),
        ({"gen.stop": "a,b"}, {"stop": ["a,b"]}),
        ({"gen.stop": '["a", "b"]'}, {"stop": ["a", "b"]}),
        ({"gen.stop": ["a"]}, {"stop": ["a"]}),
        ({"stopping_sequences": "a, b"}, {"stop": ["a", "b"]}),
        ({"gen.logprobs": True}, {"logprobs": 0}),
        ({"gen.logprobs": "3"}, {"logprobs": 3}),
        ({"temperature": None}, {}),
    ],
)
def test_sampling(config, sampling):
    assert generation(config).sampling == sampling


def test_what_is_not_sampling():
    read = generation({"timeout_s": "2.5", "gen.n": 2, "generation.stream": "true"})
    assert (read.timeout, read.n, read.stream, read.sampling) == (2.5, 2, True, {})


def test_keys_without_effect_are_reported_unless_they_ask_for_nothing():
    assert generation({"gen.use_beam_search": False, "gen.batch_size": 1}).ignored == []
    assert generation({"generation.use_beam_search": True}).ignored == ["generation.use_beam_search"]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("gen.temprature", "gen.temperature"),
        ("generation.max_token", "generation.max_tokens"),
        ("topk", "top_k"),
        ("gen.stop_token_id", "gen.stop_token_ids"),
    ],
)
def test_an_unknown_generation_key_names_the_nearest(key, near):
    with pytest.raises(InvalidRequestError) as caught:
        generation({key: 1})
    assert key in str(caught.value) and repr(near) in str(caught.value)
    assert caught.value.param == key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "warm"),
        ("temperature", True),
        ("max_length", 1.5),
        ("max_length", -1),
        ("gen.stop", 7),
        ("gen.stop_token_ids", {"a": 1}),
        ("gen.stop_token_ids", [-1]),
        ("gen.top_k", -2),
        ("timeout_s", 0),
        ("gen.stream", "perhaps"),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(InvalidRequestError, match=key.replace(".", r"\.")):
        generation({key: value})


@pytest.mark.parametrize("key", ["image", "gen.abort", "gen.adapter_name_or_path"])
def test_what_this_version_cannot_do_is_said(key):
    with pytest.raises(UnsupportedError):
        generation({key: "x"})


def test_a_deployment():
    read = deployment(
        {
            "generation.temperature": "0.2",
            "max_tokens": 9,
            "compute": "exact",
            "queue_limit": "3",
            "backend.max_model_len": 8192,
            "backend.max_num_seqs": "16",
            "backend.gpu_memory_utilization": 0.9,
            "quatization": "false",
            "infer.bool.load_in_4bit": "true",
        }
    )
    assert read.defaults == {"temperature": 0.2, "max_tokens": 9}
    assert read.limits == {"queue_limit": 3, "context_length": 8192, "max_sequences": 16}
    assert read.compute == "exact"
    assert read.ignored == ["backend.gpu_memory_utilization=0.9", "infer.bool.load_in_4bit='true'"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"backend.max_model_length": 1}, "'backend.max_model_len'"),
        ({"quantisation": "4"}, "'quantization'"),
        ({"temprature": 1}, "'temperature'"),
        ({"compute": "slow"}, "exact"),
        ({"queue_limit": "many"}, "queue_limit"),
        ({"saas.api_key": "x"}, "saas/"),
    ],
)
def test_a_wrong_deployment_parameter_is_named(params, words):
    with pytest.raises(InvalidRequestError) as caught:
        deployment(params)
    assert words in str(caught.value)


@pytest.mark.parametrize("word", ["custom/auto", "", "custom/llama2", "llama", "custom/qwen", "falcon"])
def test_chat_families_are_known(word):
    families.family(word)


@pytest.mark.parametrize("word", ["saas/openai", "custom/bge", "bark", "custom/stable_diffusion"])
def test_other_kinds_of_models_are_not_here_yet(word):
    with pytest.raises(UnsupportedError, match=word):
        families.family(word)


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(InvalidRequestError, match="'custom/llama2'"):
        families.family("custom/lama2")


def test_a_family_is_compared_with_the_file():
    assert families.mismatch("llama2", ["LlamaForCausalLM"]) is None
    assert families.mismatch("auto", ["Qwen2ForCausalLM"]) is None
    assert families.mismatch("qwen", []) is None
    assert "Qwen2ForCausalLM" in families.mismatch("llama2", ["Qwen2ForCausalLM"])
