"""Requests in the form of Byzer-LLM's workers: the examples of its wire protocol."""

import json
import threading

import pytest

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.utils.client import EventName

SHORT = {"max_length": 4, "temperature": 0}


@pytest.fixture
def chat(llm, checkpoint):
    llm.deploy(checkpoint, udf_name="chat")
    return llm


def test_answers(chat):
    history = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    item = {"instruction": "and now?", "history": history, **SHORT}
    [result] = chat._query("chat", [item])
    same = chat.chat_oai([*history, {"role": "user", "content": "and now?"}], model="chat", llm_config=SHORT)[
        0
    ]
    assert result["predict"] == same.output and result["input"] == item
    assert result["metadata"]["input_tokens_count"] == same.metadata["input_tokens_count"]
    prompt = chat.apply_chat_template("chat", [*history, {"role": "user", "content": "and now?"}])
    [rendered] = chat._query("chat", [{"instruction": prompt, "history": [], "generation.top_k": 5, **SHORT}])
    assert rendered["predict"] == result["predict"], "without a history it is the prompt as it stands"


def test_other_work_and_its_order(chat):
    messages = [{"role": "user", "content": "hi"}]
    results = chat._query(
        "chat",
        [
            {"instruction": "hi", "tokenizer": True},
            {"instruction": "hi", **SHORT},
            {"instruction": json.dumps(messages), "apply_chat_template": "true"},
            {"instruction": "", "meta": True},
        ],
    )
    predicts = [result["predict"] for result in results]
    assert predicts[0] == chat.tokenize("chat", "hi")[0].output and isinstance(predicts[1], str)
    assert predicts[2] == chat.apply_chat_template("chat", messages) and predicts[3] == [
        chat.get_meta("chat")
    ]
    assert chat.setup_default_model_name("chat")._query(None, [{"instruction": "", "meta": True}])[0][
        "predict"
    ]


def test_a_stream_is_aborted(llm, endless):
    llm.deploy(endless, udf_name="long")
    stream = llm.stream_chat_oai("hi", model="long", llm_config={"max_length": 50_000, "temperature": 0})
    request_id = next(stream).meta.extra_info["request_id"]
    abort = [{"instruction": request_id, "gen.request_id": request_id, "gen.abort": True}]
    thread = threading.Thread(target=llm._query, args=("long", abort))
    thread.start()
    assert len(list(stream)) < 50_000
    thread.join()


def test_callbacks_see_it(chat):
    given = [{"predict": "mine", "metadata": {}, "input": {}}]
    chat.add_event_callback(EventName.BEFORE_CALL_MODEL, lambda *arguments: (False, given))
    assert chat._query("chat", [{"instruction": "hi"}]) == given


def test_requests_that_are_none(chat):
    with pytest.raises(InvalidRequestError, match="input_value should be json serializable"):
        chat._query("chat", [{"instruction": object()}])
    for wrong in ({"history": []}, {"instruction": ["a"]}, {"instruction": "x", "gen.topk": 1}):
        with pytest.raises(InvalidRequestError):
            chat._query("chat", [wrong])
    pair = ["query", "passage"]
    for absent in (
        {"instruction": "x", "embedding": True},
        {"instruction": pair, "embedding": True, "embed_rerank": True},
        {"instruction": "x", "generation.stream": True},
    ):
        with pytest.raises(UnsupportedError):
            chat._query("chat", [absent])
