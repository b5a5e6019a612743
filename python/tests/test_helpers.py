"""The helper functions of `byzerllm.utils` and `import byzerllm`."""

import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, ClassVar, Optional
from urllib.parse import parse_qs

import pytest

import byzerllm
from byzerllm import utils
from byzerllm.errors import InvalidRequestError, NotFoundError, TooLargeError, UnavailableError, UpstreamError
from byzerllm.utils.client import ByzerLLM


def test_sums_and_names(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("你好".encode())
    assert (
        utils.generate_str_md5("你好")
        == utils.generate_file_md5(str(path))
        == "7eca689f0d3389d9dea66ae112e5cfd7"
    )
    assert len(utils.random_uuid()) == 32 and utils.random_uuid() != utils.random_uuid()


def test_printing_and_times(capsys):
    @utils.timeit
    def double(x):
        return 2 * x

    utils.print_flush("a", "b", sep="-")
    assert double(x=4) == 8 and double.__name__ == "double"
    assert capsys.readouterr().out.splitlines()[0] == "a-b"


def test_a_function_may_take_so_long():
    release = threading.Event()

    @utils.timeout(0.05)
    def wait():
        release.wait(60)

    @utils.timeout(60)
    def fail():
        raise KeyError("x")

    with pytest.raises(utils.TimeoutException, match=r"0\.05") as caught:
        wait()
    assert isinstance(caught.value, TimeoutError)
    release.set()
    with pytest.raises(KeyError):
        fail()
    assert utils.timeout(60)(lambda: 5)() == 5
    with pytest.raises(InvalidRequestError):
        utils.timeout(0)


def test_json_of_a_text():
    assert utils.load_json_str('{"a": 1}') == {"a": 1}
    assert utils.load_json_str("So:\n```json\n[1]\n```\nand\n```json\n[2]\n```\n") == [2]
    with pytest.raises(InvalidRequestError, match="no JSON"):
        utils.load_json_str("nothing")


def test_names_of_types():
    names = [utils.get_type_name(kind) for kind in (int, str, list, dict[str, int], list[str], Optional[int])]  # noqa: UP045 - as users write it
    assert names == ["int", "str", "list", "dict[str, int]", "list[str]", "Optional"]
    assert utils.is_annotated_type(Annotated[int, "x"]) and not utils.is_annotated_type(int)


def test_code_runs_and_output_comes_back():
    out = sys.stdout
    code = "import sys\nx = 3\ndef f(): return x\nprint('hello')\nprint('oops', file=sys.stderr)"
    status, printed, found = utils.exec_capture_output(code, {"f": True, "absent": True})
    assert (status, printed) == (0, "hello\noops\n") and found["f"]() == 3 and list(found) == ["f"]
    for bad in ("1 / 0", "raise SystemExit(3)", "def"):
        status, printed, found = utils.exec_capture_output(bad)
        assert status == 1 and "Traceback" in printed and found == {}
    assert sys.stdout is out, "standard output is back, whatever happened"


class Tokenizer:
    """A letter is a token."""

    def encode(self, text, add_special_tokens=True):
        return [1] * add_special_tokens + [ord(letter) for letter in text]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(map(chr, ids))


def test_lengths_and_stops():
    assert utils.compute_max_new_tokens([[1, 2, 3]], 10) == 7
    with pytest.raises(TooLargeError, match=r"Input is too long \(3\)"):
        utils.compute_max_new_tokens([[1, 2, 3]], 3)
    tokenizer = Tokenizer()
    assert utils.tokenize_string(tokenizer, "ab") == [97, 98] and utils.tokenize_string(tokenizer, "a") == 97
    assert utils.tokenize_stopping_sequences(tokenizer, ["ab", "c"]) == [[97, 98], 99]
    needed = utils.tokenize_stopping_sequences_where_needed
    assert needed(tokenizer, ["a", 7, [8, 9]]) == [97, 7, [8, 9]] and needed(tokenizer, None) is None
    criteria = utils.StopSequencesCriteria(tokenizer, ["END"], input_start=3)
    assert criteria([tokenizer.encode("ENDxEND", False)], None)
    assert not criteria([tokenizer.encode("ENDxEN", False)], None)
    late = utils.StopSequencesCriteria(tokenizer, ["E"], 0, skip_check_min_length=3)
    assert not late([tokenizer.encode("xE", False)]) and late([tokenizer.encode("xxE", False)])


def test_stream_servers_keep_the_latest():
    server = utils.BlockVLLMStreamServer()
    assert server.get_item("a") is None
    server.add_item("a", "RUNNING")
    server.add_item("a", 1)
    server.add_item("a", 2)
    assert [server.get_item("a"), server.get_item("a")] == [2, 2]
    server.mark_done("a")
    server.add_item("a", "RUNNING")
    assert [server.get_item("a"), server.get_item("a")] == [2, None], "a late write brings nothing back"

    async def use():
        server = utils.VLLMStreamServer()
        await server.add_item("a", 1)
        await server.mark_done("a")
        return [await server.get_item("a"), await server.get_item("a")]

    assert asyncio.run(use()) == [1, None]
    binary = utils.BlockBinaryStreamServer()
    assert binary.get_item("a") == "RUNNING"
    binary.add_item("a", b"1")
    binary.add_item("a", b"2")
    binary.mark_done("a")
    assert [binary.get_item("a") for _ in range(3)] == [b"1", b"2", None]


def test_old_prompts():
    lines = utils.generate_instruction_from_history("3", [{"role": "user", "content": "1"}])
    assert lines == "User:1\nUser:3\nAssistant:"


def test_typed_parameters(tmp_path):
    params = {
        "sft.int.max_length": "128",
        "sft.bool.a": "true",
        "sft.bool.b": "false",
        "sft.float.rate": "1e-3",
        "sft.list.layers": "[1]",
        "sft.dict.map": '{"a": 1}',
        "sft.str.word": "x",
        "sft.odd.raw": "y",
        "other.int.x": "1",
    }
    assert byzerllm.parse_params(params, "sft") == {
        "max_length": 128,
        "a": True,
        "b": False,
        "rate": 0.001,
        "layers": [1],
        "map": {"a": 1},
        "word": "x",
        "raw": "y",
    }
    with pytest.raises(InvalidRequestError, match=r"sft\.list\.x"):
        byzerllm.parse_params({"sft.list.x": "{}"}, "sft")
    byzerllm.check_param_exists({"a": None}, "a")
    with pytest.raises(InvalidRequestError, match="b is required"):
        byzerllm.check_param_exists({"a": None}, "b")
    byzerllm.log_to_file("one", str(tmp_path / "log"))
    byzerllm.log_to_file("two", str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert byzerllm.BlockRow(start=0, offset=2, value=b"x").value == b"x"


def test_models_that_auto_coder_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert byzerllm.get_model_info("deepseek_chat", "lite")["model_name"] == "deepseek-chat"
    assert byzerllm.get_model_info("nobody", "lite") is None and byzerllm.get_model_info("x", "pro") is None
    keys = tmp_path / ".auto-coder" / "keys"
    keys.mkdir(parents=True)
    mine = {
        "name": "mine",
        "base_url": "http://127.0.0.1:1/v1",
        "model_type": "saas/openai",
        "api_key_path": "mine.key",
    }
    (keys / "models.json").write_text(json.dumps([mine]))
    (keys / "mine.key").write_text("secret\n")
    info = byzerllm.get_model_info("nobody, mine", "lite")
    assert (info["name"], info["api_key"]) == ("mine", "secret")
    with pytest.raises(NotFoundError, match=r"models\.json"):
        byzerllm.get_single_llm("nobody", "lite")
    with pytest.raises(InvalidRequestError, match="product_mode"):
        byzerllm.get_model_info("mine", "max")
    (keys / "models.json").write_text("{")
    with pytest.raises(InvalidRequestError, match=r"models\.json"):
        byzerllm.get_model_info("mine", "lite")


def test_names_of_the_models_of_clients():
    llm = ByzerLLM().setup_default_model_name("a")
    llm.setup_sub_client("code", [ByzerLLM().setup_default_model_name(name) for name in ("b", "c", "b")])
    assert byzerllm.get_llm_names(llm) == ["a"] and byzerllm.get_llm_names(llm, "code") == ["b", "c"]
    assert byzerllm.get_llm_names(llm, "none") == [] == byzerllm.get_llm_names(None)


class Engine(BaseHTTPRequestHandler):
    """Byzer's SQL engine, as far as forms go."""

    seen: ClassVar[dict] = {}

    def do_POST(self):
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        type(self).seen = {key: values[0] for key, values in parse_qs(text).items()}
        status, body = {"fail": (500, "broken"), "words": (200, "no json")}.get(
            self.seen["sql"], (200, json.dumps([{"a": 1}]))
        )
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


def test_the_way_to_sql():
    server = HTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/model/predict"
    llm = ByzerLLM(byzer_engine_url=url)
    assert llm.apply_sql_func("select 1", [{"x": "你"}]) == {"a": 1}
    assert Engine.seen == {
        "sessionPerUser": "true",
        "sessionPerRequest": "true",
        "owner": "admin",
        "dataType": "row",
        "sql": "select 1",
        "data": '[{"x": "你"}]',
    }
    assert llm._rest_byzer_script("load x", "me", url) == [{"a": 1}]
    assert Engine.seen["includeSchema"] == "true" and Engine.seen["owner"] == "me"
    with pytest.raises(UpstreamError, match="status:500 content: broken"):
        llm.apply_sql_func("fail", [])
    with pytest.raises(UpstreamError, match="no JSON"):
        llm.apply_sql_func("words", [])
    server.shutdown()
    server.server_close()
    with pytest.raises(UnavailableError):
        llm.apply_sql_func("select 1", [])
