"""The modules of `byzerllm.utils.client`, and images and sounds in texts."""

import base64
import json
import sys
import threading
from types import SimpleNamespace

import pytest

from byzerllm.errors import InvalidRequestError, UnsupportedError
from byzerllm.utils.client import code_utils, img_utils, math_utils, message_utils, parallel_utils
from byzerllm.utils.nontext import Audio, Image, Tag, TagExtractor

ANSWER = """Here:

```python
print(1)
```

and
```
plain
```
 ```json
{"a": 1,
 "b": 2}
 ```
"""


def test_code_is_found():
    assert code_utils.extract_code(ANSWER) == [
        ("python", "print(1)"),
        ("", "plain"),
        ("json", '{"a": 1,\n "b": 2}'),
    ]
    assert code_utils.extract_code("no code") == [("unknown", "no code")]
    found = code_utils.extract_code("use `ls` and\n```sh\npwd\n```", detect_single_line_code=True)
    assert found == [("", "ls"), ("sh", "pwd")]
    assert code_utils.extract_code([{"type": "text", "text": "```js\n1\n```"}]) == [("js", "1")]
    assert code_utils.extract_code(None) == [("unknown", "")]
    codes = code_utils.extract_code(ANSWER)
    assert code_utils.check_target_codes_exists(codes, ["json"]) and not code_utils.check_target_codes_exists(
        codes, ["go"]
    )
    assert code_utils.get_target_codes(codes, ["python", "json"]) == [codes[0], codes[2]]


def test_values_are_found():
    assert code_utils.get_value_from_llm_str(ANSWER, "b", 0) == 2
    assert code_utils.get_value_from_llm_str(ANSWER, "c", 7) == 7
    two = '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```\n```json\n{"b": 3}\n```'
    assert code_utils.get_value_from_llm_str(two, "a", 0) == 2, "the last block that has it"
    assert code_utils.get_value_from_llm_str('{"a": 5}', "a", 0) == 5


def test_languages_and_contents():
    words = {"pip install x": "sh", "python a.py": "sh", "x = 1": "python", "你好，再见": "unknown"}
    assert {code: code_utils.infer_lang(code) for code in words} == words
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}, "b"]
    assert code_utils.content_str(parts) == "a<image>b" and code_utils.content_str(None) == ""
    with pytest.raises(InvalidRequestError):
        code_utils.content_str([{"type": "video"}])
    assert (code_utils.DEFAULT_MODEL, code_utils.UNKNOWN) == ("chat", "unknown")


def test_code_runs(tmp_path):
    run = code_utils.execute_code
    assert run("import sys\nprint(sys.executable)", work_dir=str(tmp_path)) == (
        0,
        f"{sys.executable}\n",
        None,
    )
    assert list(tmp_path.iterdir()) == [], "what was written for it is gone"
    status, output, image = run("print('out')\nraise ValueError('bad')", work_dir=str(tmp_path))
    assert status == 1 and "ValueError: bad" in output and str(tmp_path) not in output and image is None
    assert run("exit 3", lang="sh", work_dir=str(tmp_path))[0] == 3
    assert run("echo $((1+1))", lang="sh", work_dir=str(tmp_path))[:2] == (0, "2\n")
    kept = run("print(5)", filename="kept.py", work_dir=str(tmp_path))
    assert kept[1] == "5\n" and (tmp_path / "kept.py").exists()
    assert run(filename="kept.py", work_dir=str(tmp_path))[1] == "5\n"
    assert run("while True: pass", timeout=0.2, work_dir=str(tmp_path)) == (1, code_utils.TIMEOUT_MSG, None)
    for wrong in ({"lang": "cobol"}, {"use_docker": True}):
        with pytest.raises(UnsupportedError):
            run("x", **wrong)
    with pytest.raises(InvalidRequestError):
        run()


def test_functions_are_judged():
    definition = "def double(x):\n"
    right, wrong, whole = (
        "    return 2 * x",
        "    return x",
        "```python\ndef double(x):\n    return x + x\n```",
    )
    check = "def check(f):\n    assert f(3) == 6"
    judge = code_utils.eval_function_completions
    found = judge([wrong, right], definition, test=check, entry_point="double")
    assert found["success"] and found["expected_success"] == pytest.approx(0.75)
    found = judge([wrong, whole], definition, assertions="assert double(2) == 4")
    assert found["index_selected"] == 1 and found["succeed_assertions"]
    assert not judge([wrong], definition, test=check, entry_point="double")["success"]
    with pytest.raises(InvalidRequestError):
        judge([right], definition)


def test_notes_on_messages():
    message = {"role": "user", "content": "x", "metadata": {"kept": 1}}
    assert message_utils.termindate_message(message)["metadata"] == {"kept": 1, "TERMINATE": True}
    assert message_utils.un_termindate_message(message)["metadata"]["TERMINATE"] is False
    assert message_utils.is_success(message_utils.success_message({"content": "x"}))
    assert not message_utils.is_success(message_utils.fail_message({"content": "x"}))
    assert not message_utils.is_success({"content": "x"})
    for _ in range(3):
        assert not message_utils.check_error_count(message)
        message_utils.inc_error_count(message)
    assert message_utils.check_error_count(message) and not message_utils.check_error_count(message, 4)
    reply = message_utils.copy_error_count(message, {"content": "y"})
    assert message_utils.get_error_count(reply) == 3


def says(*pairs):
    return [
        {"role": {"u": "user", "a": "assistant", "s": "system"}[role], "content": text}
        for role, text in pairs
    ]


@pytest.mark.parametrize(
    ("given", "merged", "expanded"),
    [
        ([], [], []),
        ([("u", "1")], [("u", "1")], [("u", "1")]),
        (
            [("u", "1"), ("u", "2")],
            [("u", "1\n2")],
            [("u", "1"), ("a", "continue"), ("u", "2")],
        ),
        (
            [("a", "1"), ("a", "2")],
            [("u", "continue"), ("a", "1\n2"), ("u", "continue")],
            [("u", "continue"), ("a", "1"), ("u", "continue"), ("a", "2"), ("u", "continue")],
        ),
        (
            [("s", "0"), ("a", "1"), ("u", "2")],
            [("s", "0"), ("u", "continue"), ("a", "1"), ("u", "2")],
            [("s", "0"), ("u", "continue"), ("a", "1"), ("u", "2")],
        ),
    ],
)
def test_conversations_are_padded(given, merged, expanded):
    conversation = says(*given)
    assert message_utils.padding_messages_merge(conversation) == says(*merged)
    assert message_utils.padding_messages_expand(conversation) == says(*expanded)
    assert conversation == says(*given), "the caller's messages stay"


def test_a_question_is_asked_by_several_threads():
    together = threading.Barrier(3)
    count = iter(range(3))

    class Client:
        def chat_oai(self, conversations):
            together.wait(60)
            number = next(count)
            if number == 0:
                raise ValueError("one fails")
            return [SimpleNamespace(output="" if number == 1 else conversations)]

    answers = parallel_utils.chat_oai(Client(), workers=3, conversations="hi")
    assert len(answers) == 2 and parallel_utils.get_single_result(answers)[0].output == "hi"

    class Broken:
        def chat_oai(self):
            raise ValueError("all fail")

    with pytest.raises(ValueError, match="all fail"):
        parallel_utils.chat_oai(Broken())
    empty = [SimpleNamespace(output="")]
    assert parallel_utils.get_single_result([empty, [SimpleNamespace(values=[1])]])[0].values == [1]
    assert parallel_utils.get_single_result([empty, [SimpleNamespace(value=None)]]) is None


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a b.png"
    path.write_bytes(PNG)
    return str(path)


def test_images_of_prompts(picture):
    text = base64.b64encode(PNG).decode()
    uri = f"data:image/png;base64,{text}"
    assert (
        img_utils.get_image_data(picture)
        == img_utils.get_image_data(uri)
        == img_utils.get_image_data(text)
        == text
    )
    assert img_utils.get_image_data(picture, use_b64=False) == PNG
    assert img_utils.convert_base64_to_data_uri(text) == uri
    prompt = f"look <img {picture}> there <img {picture}>"
    assert img_utils.llava_formater(prompt) == ("look <image> there <image>", [text, text])
    assert img_utils.llava_formater(prompt, True)[0] == "look <image 0> there <image 1>"
    assert img_utils.gpt4v_formatter(prompt)[:2] == [
        {"type": "text", "text": "look "},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    assert img_utils.gpt4v_formatter("<img http://x/y.png>", "url")[0]["image_url"] == {
        "url": "http://x/y.png"
    }
    assert img_utils.extract_img_paths("see /a/b.png and http://x/y.JPG, not c.txt") == [
        "/a/b.png",
        "http://x/y.JPG",
    ]
    with pytest.raises(InvalidRequestError, match="no image"):
        img_utils.get_image_data("/no/such file")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\frac{1}{2}", "0.5"),
        ("\\frac12", "\\dfrac{1}{2}"),
        ("1/2", "\\frac{1}{2}"),
        ("x = 5", "5"),
        ("10\\%", "10"),
        ("1,000", "1000"),
        ("90^\\circ", "90"),
        (".5", "\\frac{1}{2}"),
        ("5 \\text{ cm}", "5"),
    ],
)
def test_answers_that_are_the_same(one, other):
    assert math_utils.is_equiv(one, other) == 1.0


def test_mathematics():
    assert math_utils.is_equiv("(1,2)", "(1,3)") == 0.0 and math_utils.is_equiv(None, "1") == 0.0
    text = "so \\boxed{1} or \\boxed{\\frac{1}{2}} it is"
    assert math_utils.last_boxed_only_string(text) == "\\boxed{\\frac{1}{2}}"
    assert math_utils.remove_boxed("\\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert math_utils.remove_boxed("1") is None and math_utils.last_boxed_only_string("1") is None
    assert math_utils.is_equiv_chain_of_thought("thus \\boxed{0.5}", "\\boxed{1/2}") == 1.0
    responses = ["\\boxed{2}", "\\boxed{3}", "\\boxed{2.}", "none"]
    assert math_utils.voting_counts(responses) == {"2": 2, "3": 1}
    result = math_utils.eval_math_responses(responses, "\\boxed{2}")
    assert result["success"] and result["success_vote"] == 1.0
    assert (result["voted_answer"], result["votes"]) == ("2", 2)
    assert math_utils.eval_math_responses([])["success"] is False
    asked = []

    class Client:
        def chat_oai(self, conversations, **config):
            asked.append((conversations[0]["content"], config))
            return [SimpleNamespace(output="It is \\boxed{4}.")]

    assert math_utils.solve_problem("2+2?", llm=Client(), model="chat") == "4"
    assert asked[0][0].startswith("2+2?") and asked[0][1] == {"model": "chat"}


def test_images_in_texts(picture, tmp_path):
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    text = Image.convert_image_paths_from(f"<img>{picture}</img>what is it?")
    assert text == f"<_image_>{uri}</_image_>what is it?"
    assert Image(text).has_image() and not Image("plain").has_image()
    assert json.loads(Image(text).to_content()) == [{"image": uri}, {"text": "what is it?"}]
    assert Image("plain").to_content() == "plain"
    assert Image.extract_image_paths(f"<_image_>{picture}</_image_>") == [picture]
    assert Image.extract_image_paths(f"<_image_>{picture}</_image_>", to_base64=True) == [uri]
    assert Image.load_image_from_path(picture, only_content=True) == uri
    saved = Image.save_image_to_path(uri, str(tmp_path / "out.jpg"), auto_fix_suffix=True)
    assert saved == str(tmp_path / "out.png") and (tmp_path / "out.png").read_bytes() == PNG
    with pytest.raises(InvalidRequestError, match="no data URI"):
        Image.save_image_to_path("x", str(tmp_path / "out"))


def test_sounds_in_texts(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(b"sound")
    text = Audio.load_audio_from_path(str(path))
    assert text == "<_audio_>data:audio/mpeg;base64,c291bmQ=</_audio_>" and Audio(text).has_audio()
    assert json.loads(Audio(text + "hm").to_content())[1] == {"text": "hm"}
    assert Audio.extract_audio_paths(f"<_audio_>{path}</_audio_>") == [str(path)]
    assert (
        tmp_path / Audio.save_audio_to_path(Audio.load_audio_from_path(str(path), True), str(tmp_path / "b"))
    ).read_bytes() == b"sound"


def test_tags_are_a_tree():
    root = TagExtractor("x<_image_>data</_image_>y<_group_><_a_>1</_a_><_b_>2</_b_></_group_>").extract()
    image, group = root.content
    assert (image.start_tag, image.end_tag, image.content) == ("<_image_>", "</_image_>", "data")
    assert [tag.content for tag in group.content] == ["1", "2"] and group.parent is root
    assert TagExtractor("plain").extract() == Tag("<_ROOT_>", "</_ROOT_>", [])
    for wrong in ("<_a_>x", "x</_a_>", "<_a_>x</_b_>"):
        with pytest.raises(InvalidRequestError, match="close"):
            TagExtractor(wrong).extract()
