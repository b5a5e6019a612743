"""The parts of the comparison in bench/ that need no engine: reading, summing up, writing tables."""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import compare  # noqa: E402
import corpus  # noqa: E402
import load  # noqa: E402
import parse  # noqa: E402
import quality  # noqa: E402
from common import Problem, markdown_table, median, number, spread  # noqa: E402


def test_statistics():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert spread([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert [load.percentile(list(range(1, 101)), share) for share in (50, 95, 100)] == [50, 95, 100]
    assert load.percentile([7.0], 95) == 7.0
    assert [number(value) for value in (None, 0.123, 12.34, 1234.5)] == ["–", "0.12", "12.3", "1,234"]


def test_what_llama_cpp_prints_is_read():
    tests = [
        {"n_prompt": 512, "n_gen": 0, "avg_ts": 640.5},
        {"n_prompt": 0, "n_gen": 64, "avg_ts": 110.25},
    ]
    assert parse.llama_bench(json.dumps(tests)) == {"prefill": 640.5, "decode": 110.25}
    lines = 'loading\n{"pp": 32, "tg": 64, "pl": 16, "speed_tg": 208.0}\n{"pp": 32, "tg": 64, "pl": 32, "speed_tg": 196.5}\n'
    assert parse.batched_bench(lines) == {16: 208.0, 32: 196.5}
    said = "perplexity: calculating perplexity over 12 chunks, n_ctx=1024\n[1]9.1,\nFinal estimate: PPL = 18.4321 +/- 0.1"
    assert (parse.windows(said), parse.perplexity(said)) == (12, 18.4321)
    assert parse.status_bytes("VmPeak:\t 10 kB\nVmHWM:\t    2048 kB\n", "VmHWM") == 2 << 20
    for read in (parse.batched_bench, parse.perplexity, parse.windows):
        with pytest.raises(Problem):
            read("error")


def test_events_are_put_together_however_they_arrive():
    body = b'data: {"a":1}\r\n\r\n: ping\n\ndata: {"b":"xyz"}\n\ndata: [DONE]\n\n'
    for seed in range(100):
        chance = random.Random(seed)
        chunked, rest = b"", body
        while rest:
            size = chance.randint(1, 20)
            chunked += b"%x\r\n%b\r\n" % (len(rest[:size]), rest[:size])
            rest = rest[size:]
        for sent, is_chunked in ((chunked + b"0\r\n\r\n", True), (body, False)):
            events, found = load.Events(is_chunked), []
            while sent:
                size = chance.randint(1, 9)
                found += events.feed(sent[:size])
                sent = sent[size:]
            assert found == [b'{"a":1}', b'{"b":"xyz"}', b"[DONE]"]


def test_a_load_asks_the_same_of_every_server():
    source = " ".join(f"word{index}" for index in range(5000))
    shape = load.Shape(requests=20)
    bodies = load.requests(shape, "m", source, seed=3)
    assert bodies == load.requests(shape, "m", source, seed=3)
    assert bodies != load.requests(shape, "m", source, seed=4)
    assert len({body["messages"][0]["content"][:12] for body in bodies}) == 20
    assert all(64 <= body["max_tokens"] <= 128 and body["ignore_eos"] for body in bodies)


def test_an_answer_is_timed_and_counted():
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "Hel"}}]},
        {"choices": [{"delta": {"content": "lo"}}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    ]

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for event in events:
            writer.write(f"data: {json.dumps(event)}\n\n".encode())
        writer.write(b"data: [DONE]\n\n")
        writer.close()

    async def both():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await load.ask(server.sockets[0].getsockname(), {"model": "m"}, keep_text=True)

    found = asyncio.run(both())
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("Hello", 5, 2)
    assert 0 < found.first <= found.last
    total = load.summary([found, found], 2.0, 0.25)
    assert (total["new_tokens_per_second"], total["all_tokens_per_second"]) == (2.0, 7.0)


def test_texts_are_cut():
    assert corpus.without_tags("[中央/n  人民/n  电台/n]nt  １/m  张/q  ）/w") == "中央人民电台１张）"
    assert corpus.leading_lines("ab\ncd\nef\n", 4) == "ab\ncd\n"
    assert all(len(text.sha256) == 64 for text in corpus.TEXTS)


def engine(name, peer, **values):
    return {
        "name": name,
        "peer": peer,
        "kernels": None if peer else "int8",
        "median": values,
        "spread": {key: 0.01 for key in values},
    }


def test_only_quantizations_of_comparable_quality_are_rivals():
    peers = {"file": 10.0, "Q8_0": 10.05, "Q4_0": 10.3}
    scored = {kind: quality.of_texts({"a": {"perplexity": value, "tokens": 9}}) for kind, value in peers.items()}
    assert quality.comparable_kinds({"peers": scored}, list(peers)) == ["file", "Q8_0"]
    assert quality.comparable_kinds({"peers": {}}, ["file", "Q4_0"]) == ["file", "Q4_0"]
    # Only texts that both have scored are held against each other.
    scored["file"] = quality.of_texts({**scored["file"]["texts"], "b": {"perplexity": 99.0, "tokens": 9}})
    assert quality.over(scored["Q8_0"], scored["file"]) == pytest.approx(1.005)
    assert quality.comparable_kinds({"peers": scored}, [*peers, "IQ4_NL"]) == ["file", "Q8_0", "IQ4_NL"]
    found = {
        "comparable": ["file", "Q8_0"],
        "engines": [
            engine("byzerllm standard", False, prefill=1000.0, start=50.0),
            engine("llama.cpp file", True, prefill=200.0, start=200.0),
            engine("llama.cpp Q8_0", True, prefill=250.0, start=100.0),
            engine("llama.cpp Q4_0", True, prefill=500.0),
        ],
    }
    assert compare.best(found, True, "prefill", True, found["comparable"]) == (250.0, "llama.cpp Q8_0")
    assert compare.best(found, True, "start", False) == (100.0, "llama.cpp Q8_0")
    table = compare.model_table(found).splitlines()
    assert table[0].count("|") == table[1].count("|") == table[2].count("|")
    assert "| 4.00 × | 4 × |" in table[2] and "1,000 ±1 %" in table[2]
    assert "| 2.00 × | 2 × |" in table[3]
    with pytest.raises(ValueError):
        markdown_table(["a", "b"], [["1"]])


class Scorer:
    """Stands for an engine; counts how often it had to measure."""

    def __init__(self, model, found):
        self.model = self.binary = model
        self.found = found
        self.kind, self.environment, self.calls = "Q4_0", {}, 0

    def quality(self, text, core):
        assert core in os.sched_getaffinity(0)
        self.calls += 1
        return self.found[text.name]


def test_a_perplexity_is_measured_once_for_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZERLLM_CACHE", str(tmp_path / "cache"))
    texts = {name: tmp_path / f"{name}.txt" for name in ("a", "b")}
    for name, path in texts.items():
        path.write_text(name)
    model = tmp_path / "model.gguf"
    model.write_bytes(b"model")
    scores = {
        "a.txt": {"perplexity": 8.0, "windows": 1, "tokens": 511},
        "b.txt": {"perplexity": 2.0, "windows": 3, "tokens": 1533},
    }
    peer = Scorer(model, scores)
    assert quality.known(None, [peer], texts)["peers"] == {} and peer.calls == 0
    found = quality.measure(None, [peer], texts, 2)
    one = found["peers"]["Q4_0"]
    assert one["perplexity"] == pytest.approx((8.0 * 2.0**3) ** 0.25) and one["tokens"] == 2044
    assert quality.known(None, [peer], texts) == found and peer.calls == 2
    texts["b"].write_text("changed")
    assert list(quality.known(None, [peer], texts)["peers"]["Q4_0"]["texts"]) == ["a"]
    quality.measure(None, [peer], texts, 1)
    assert peer.calls == 3, "the text that is the same is not measured again"
    model.write_bytes(b"other")
    quality.measure(None, [peer], texts, 1)
    assert peer.calls == 5
    peer.found, texts["b"] = {}, texts["a"]
    model.write_bytes(b"broken")
    with pytest.raises(KeyError):
        quality.measure(None, [peer], texts, 2)


def own_report(tokens, *perplexities):
    modes = [
        {
            "compute": mode,
            "kernels": mode,
            "perplexity": value,
            "divergence": 0.001 * place,
            "greedy_agreement": 1 - 0.01 * place,
            "files": [{"divergence_99th_percentile": 0.1}],
        }
        for place, (mode, value) in enumerate(zip(("exact", "standard", "fast"), perplexities))
    ]
    return {"files": [{"tokens": tokens, "windows": 1}], "modes": modes}


def test_modes_are_held_against_the_exact_one_in_each_text_and_in_all(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZERLLM_CACHE", str(tmp_path / "cache"))
    paths = {name: tmp_path / f"{name}.txt" for name in ("english", "code")}
    for name, path in paths.items():
        path.write_text(name)
    program = tmp_path / "program"
    program.write_bytes(b"program")
    reports = {"english.txt": own_report(100, 10.0, 10.01, 10.05), "code.txt": own_report(300, 4.0, 4.0, 4.08)}
    engine = Scorer(program, reports)
    assert quality.known(engine, [], paths)["own"] == {}
    modes = quality.measure(engine, [], paths, 1)["own"]
    assert quality.known(engine, [], paths)["own"] == modes
    assert list(modes) == ["exact", "standard", "fast"]
    assert modes["exact"]["perplexity"] == pytest.approx((10.0 * 4.0**3) ** 0.25)
    # Each text's mean weighs as much as it has tokens.
    assert modes["fast"]["divergence"] == pytest.approx(0.002)
    peer = {"texts": {"english": {"perplexity": 10.2, "tokens": 100}, "code": {"perplexity": 4.0, "tokens": 300}}}
    peer = quality.of_texts(peer["texts"])
    assert "divergence" not in peer
    found = {"own": modes, "peers": {"file": peer}}
    quality.check_windows(found)
    lines = quality.table(found).splitlines()
    assert "english, 100 tokens" in lines[0] and "all 400" in lines[0]
    assert "| byzerllm fast | 10.050 (+0.50 %) | 4.080 (+2.00 %) |" in lines[4]
    assert any("fast" in line and "1 %: MISSED" in line for line in lines)
    assert any("standard" in line and "0.5 %: kept" in line for line in lines)
    peer["texts"]["code"]["tokens"] = 299
    with pytest.raises(Problem, match="299 and 300 tokens of the code text"):
        quality.check_windows(found)
    partly = quality.of_texts({"english": peer["texts"]["english"]})
    lines = quality.table({"own": modes, "peers": {"file": peer, "Q8_0": partly}}).splitlines()
    assert "| llama.cpp Q8_0 | 10.200 (+2.00 %) | – | – | +2.00 % | +0.00 % |" in lines
