"""The JSON in what models write."""

import pytest

from byzerllm.schema import reader


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ("[1, 2]", [[1, 2]]),
        ('Sure! {"a": 1, "b": [1, 2,],} Anything else?', [{"a": 1, "b": [1, 2]}]),
        ('```json\n{"a": 1}\n```', [{"a": 1}]),
        ('First\n```\n{"a": 1}\n```\nthen\n```json\n{"b": 2}\n```', [{"a": 1}, {"b": 2}]),
        ('```json\n{"a": 1}', [{"a": 1}]),
        ('```python\nx = {"a": 1}\n```', []),
        ("{'a': True, 'b': None, c: 'it\\'s'}", [{"a": True, "b": None, "c": "it's"}]),
        ('{"a": "two\nlines"}', [{"a": "two\nlines"}]),
        ('{"a": "he said "hi" to me", "b": 1}', [{"a": 'he said "hi" to me', "b": 1}]),
        ('{"a": "one, "two", three"}', [{"a": 'one, "two", three'}]),
        ('{"a": 1 // many\n, /* more */ "b": 2}', [{"a": 1, "b": 2}]),
        ('{"a": "x"\n"b": 2}', [{"a": "x", "b": 2}]),
        ("{“名字”：“张三”，“年龄”：3}", [{"名字": "张三", "年龄": 3}]),
        ('{"a": day, "b": -1.5e3, "c": 1_000}', [{"a": "day", "b": -1500.0, "c": 1000}]),
        ('{"a": [1, {"b": "c', [{"a": [1, {"b": "c"}]}]),
        ('{"a": [1, 2}', [{"a": [1, 2]}]),
        ('{"a": 1}\n{"b": 2}', [{"a": 1}, {"b": 2}]),
        ('<tool_call>{"name": "f"}</tool_call>', [{"name": "f"}]),
        ("see [1] and {this} for more", []),
        ('{"a": "\\ud83d\\ude00 \\ud800"}', [{"a": "😀 �"}]),
        ("nothing at all", []),
        ("", []),
    ],
)
def test_documents(text, found):
    assert reader.documents(text) == found


def test_what_was_cut_is_not_closed():
    assert reader.documents('{"a": [1, {"b": "c', closed=False) == []
    assert reader.documents('{"a": 1} {"b": ', closed=False) == [{"a": 1}]


def test_the_last_document():
    assert reader.last('{"a": 1} {"b": 2}') == {"b": 2}
    with pytest.raises(ValueError, match="No json block found"):
        reader.last("prose")


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"a": "' * 50_000,
        '{"a": "' + '"#' * 50_000,
        '{"a": /*' * 10_000,
        "[" * 500 + "]" * 500,
        "'" * 9999,
    ],
)
def test_hostile_text_ends(text):
    assert isinstance(reader.documents(text), list)
