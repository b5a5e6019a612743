"""How `llm_config` is read."""

import pytest

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.parameters import generation


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


def test_words_about_the_way_of_a_request():
    read = generation({"gen.takeover": "continue", "no_cache": "true"})
    assert (read.takeover, read.no_cache, read.sampling, read.extra) == ("continue", True, {}, {})
    vendor = generation({"takeover": "never", "no_cache": True, "seed": 1}, vendor=True)
    assert (vendor.takeover, vendor.no_cache, vendor.extra) == ("never", True, {})
    assert (generation({}).takeover, generation({}).no_cache) == (None, False)
    with pytest.raises(InvalidRequestError, match="before_first"):
        generation({"takeover": "sometimes"})


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
