"""Embedding models and rerankers of this machine, through a server and inside the program."""

import pytest
from conftest import CHECKPOINTS

from byzerllm import errors
from byzerllm.utils.client import ByzerLLM, LLMRequest

EMBEDDER = str(CHECKPOINTS / "encoders" / "bert-mean")
RERANKER = str(CHECKPOINTS / "encoders" / "distilbert-rank")
LONG = "the capital of France is Paris " * 20
PASSAGES = ["hello world", "The capital of France is Paris.", "a small text"]


@pytest.fixture(params=["server", "embedded"])
def llm(request, start_server):
    if request.param == "server":
        start_server()
    llm = ByzerLLM()
    llm.deploy(EMBEDDER, "custom/bge", "emb", {})
    llm.deploy(RERANKER, "custom/bge_rerank", "rr", {})
    yield llm
    for name in ("emb", "rr"):
        llm.undeploy(name, force=True)


def test_each_text_has_its_vector(llm):
    one, two, again = llm.emb("emb", ["Paris", "hello world", "Paris"])
    assert one.output == again.output != two.output and len(one.output) == 32
    assert all(isinstance(number, float) for number in one.output)
    assert abs(sum(number * number for number in one.output) - 1) < 1e-5
    llm.setup_default_emb_model_name("emb")
    assert llm.emb_query("Paris")[0].output == one.output
    assert llm.emb(None, LLMRequest(instruction="Paris"))[0].output == one.output
    query = llm.emb("emb", "Paris", {"prompt_name": "query"})[0].output
    assert query != one.output
    same = {"gen.normalize_embeddings": True, "batch_size": 8, "top_p": 0.5}
    assert llm.emb("emb", "Paris", same)[0].output == one.output


def test_a_pair_and_a_list_of_pairs_keep_their_nesting(llm):
    single = llm.emb_rerank("rr", ["capital", PASSAGES[1]])
    assert len(single) == 1
    pair, score = single[0].output
    assert pair == ["capital", PASSAGES[1]] and isinstance(score, float)
    pairs = [("capital", passage) for passage in PASSAGES]
    rows = llm.emb_rerank("rr", pairs)[0].output
    scores = [row[1] for row in rows]
    assert sorted(row[0] for row in rows) == sorted(list(pair) for pair in pairs)
    assert scores == sorted(scores, reverse=True) and score in scores
    [[alone, same]] = llm.emb_rerank("rr", [["capital", PASSAGES[1]]])[0].output
    assert (alone, same) == (pair, score)
    assert single[0].metadata["scale"] == "logit"


def test_probabilities_when_asked_for(llm):
    logit = llm.emb_rerank("rr", ["capital", "Paris"])[0].output[1]
    for words in ({"normalize": True}, {"gen.scale": "probability"}):
        answer = llm.emb_rerank("rr", ["capital", "Paris"], words)[0]
        assert answer.output[1] == pytest.approx(1 / (1 + 2.718281828459045**-logit), abs=1e-5)
        assert answer.metadata["scale"] == "probability"


def test_the_default_models(llm):
    pair = ["capital", "Paris"]
    with pytest.raises(errors.InvalidRequestError, match="setup_default_re_rank_model_name"):
        llm.emb_rerank(sentence_pairs=pair)
    llm.setup_default_emb_model_name("rr")
    assert llm.emb_rerank(sentence_pairs=pair)[0].output[0] == pair
    llm.setup_default_emb_model_name("emb").setup_default_re_rank_model_name("rr")
    assert llm.emb_rerank(sentence_pairs=pair)[0].output[0] == pair


@pytest.mark.parametrize("pairs", [[], ["a"], "ab", ["a", "b", "c"], [["a", 1]], [["a", "b"], ["c"]], None])
def test_what_is_no_pair_is_refused(llm, pairs):
    with pytest.raises(errors.InvalidRequestError, match="emb_rerank needs a pair"):
        llm.emb_rerank("rr", pairs)


def test_too_long_is_an_error_or_cut_and_told(llm):
    with pytest.raises(errors.InvalidRequestError, match=r"input\[1\].*at most 40"):
        llm.emb("emb", ["Paris", LONG])
    cut = llm.emb("emb", ["Paris", LONG], {"truncate": True})
    told = cut[0].metadata["truncated"]
    assert [(row["input"], row["to"]) for row in told] == [(1, 40)] and told[0]["from"] > 40
    short = llm.emb("emb", LONG, {"max_length": 9})[0]
    assert short.metadata["truncated"][0]["to"] == short.metadata["input_tokens_count"] == 9
    with pytest.raises(errors.InvalidRequestError, match=r"documents\[0\]"):
        llm.emb_rerank("rr", ["capital", LONG])
    assert llm.emb_rerank("rr", ["capital", LONG], {"gen.max_length": 20})[0].metadata["truncated"]


def test_a_model_that_does_something_else_says_what_it_does(llm, checkpoint):
    with pytest.raises(errors.UnsupportedError, match="does not generate text.*emb"):
        llm.chat_oai("hi", model="emb")
    with pytest.raises(errors.UnsupportedError, match="scores pairs"):
        llm.emb("rr", "Paris")
    with pytest.raises(errors.UnsupportedError, match="makes embeddings"):
        llm.emb_rerank("emb", ["a", "b"])
    for words in ({"dimensions": 8}, {"poolling": "cls"}, {"normalize_embeddings": False}):
        with pytest.raises(errors.InvalidRequestError):
            llm.emb("emb", "Paris", words)


def test_meta_of_encoders(llm):
    meta = llm.get_meta("emb")
    assert (meta["task"], meta["embedding_mode"], meta["max_model_len"]) == ("embed", True, 40)
    assert meta["support_chat_template"] is False and meta["support_stream"] is False
    assert llm.get_meta("rr")["task"] == "rerank"


def test_requests_of_byzer_llm_to_a_worker(llm):
    asked = {"instruction": "wow", "embedding": True, "max_length": 4096, "top_p": 0.95, "temperature": 0.1}
    assert len(llm._query("emb", [asked])[0]["predict"]) == 32
    asked = {"instruction": [["q", "p1"], ["q", "p2"]], "embedding": True, "embed_rerank": True}
    predict = llm._query("rr", [asked])[0]["predict"]
    assert [len(row) for row in predict] == [2, 2] and predict[0][1] >= predict[1][1]
