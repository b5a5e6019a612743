"""Implementations in a file: reviewed, replayed without a model, refused when they were changed."""

import subprocess
import sys

import pydantic
import pytest
from test_implementations import Answers

from byzerllm.implementations.lock_file import Entry, LockFile, LockFileError
from byzerllm.utils.client import ByzerLLM

SOURCE = "def f(x):\n    return {'time': f'{x} written'}\n"


class Time(pydantic.BaseModel):
    time: str


def stub(text="Says so."):
    def f(x: int) -> Time:
        pass

    f.__doc__ = text
    return f


@pytest.fixture
def path(tmp_path):
    """A lock file with one function."""
    path = tmp_path / "byzerllm.lock.toml"
    answers = Answers(SOURCE)
    answers.llm.setup_impl_lock(path)
    assert answers.llm.impl(instruction='say "so"\nplease')(stub())(1).time == "1 written"
    return path


def offline(path, text="Says so.", instruction='say "so"\nplease', model=None):
    """Calls the function on a client that has no model."""
    llm = ByzerLLM("http://127.0.0.1:1").setup_impl_lock(path, offline=True)
    return llm.impl(instruction=instruction, model=model)(stub(text))(2)


def test_the_file_can_be_read_by_people(path):
    text = path.read_text()
    assert f"source = '''\n{SOURCE}'''" in text and 'model = "chat"' in text
    assert 'signature = "f(x: int) -> ' in text and f'name = "{__name__}.f"' in text
    (entry,) = LockFile(path).entries()
    assert entry.instruction == 'say "so"\nplease' and entry.hash == entry.sum()


def test_it_is_replayed_without_a_model(path):
    assert offline(path).time == "2 written"
    assert offline(path, model="chat").time == "2 written"


def test_the_model_is_not_asked_again(path):
    answers = Answers("nothing")
    answers.llm.setup_impl_lock(path)
    before = path.read_bytes()
    assert answers.llm.impl(instruction='say "so"\nplease')(stub())(3).time == "3 written"
    assert not answers.prompts and path.read_bytes() == before


def test_what_was_changed_is_refused_until_it_is_approved(path):
    path.write_text(path.read_text().replace("written", "changed"))
    for use in (
        lambda: offline(path),
        lambda: LockFile(path).find(f"{__name__}.f", 'say "so"\nplease', None),
    ):
        with pytest.raises(LockFileError, match="is not what was approved"):
            use()
    command = [sys.executable, "-m", "byzerllm.implementations.lock_file"]
    checked = subprocess.run([*command, "check", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 1 and f"changed: {__name__}.f" in checked.stdout and not checked.stderr
    assert subprocess.run([*command, "approve", str(path)], check=False).returncode == 0
    assert offline(path).time == "2 changed"
    assert subprocess.run([*command, "check", str(path)], capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "Something else."}, "was changed since it was written"),
        ({"instruction": None}, "is not in it"),
        ({"model": "another"}, "is not in it"),
    ],
)
def test_offline_nothing_else_is_written(path, options, message):
    with pytest.raises(LockFileError, match=message):
        offline(path, **options)


def test_a_changed_function_takes_the_place_of_the_old_one(path):
    answers = Answers("def f(x):\n    return {'time': 'new'}\n")
    answers.llm.setup_impl_lock(path)
    assert answers.llm.impl(instruction='say "so"\nplease')(stub("Something else."))(1).time == "new"
    answers.llm.impl()(stub())(1)
    assert [entry.instruction for entry in LockFile(path).entries()] == ["", 'say "so"\nplease']
    assert all("new" in entry.source for entry in LockFile(path).entries())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version = 2", "is of version 2"),
        ("version =", "is no TOML"),
        ("version = 1\n[[implementation]]\nname = 'f'", "must have exactly"),
        (
            "version = 1\n[[implementation]]\nname = 1\nsignature = ''\ninstruction = ''\nmodel = ''\nrequest = ''\n"
            "source = ''\nhash = ''",
            "must hold text only",
        ),
        (b"\xff", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "lock.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LockFileError, match=message):
        LockFile(path).entries()


def test_any_text_survives(tmp_path):
    lock = LockFile(tmp_path / "lock.toml")
    texts = [
        "",
        "'''\n",
        '"""\n\\',
        "a\r\nb",
        "\x00\x7f\u202e\ufeff\n",
        "全角　空格\n",
        "'\n'",
        "\\u0041",
        "tab\t",
        "end'",
    ]
    entries = [Entry(str(n), text, text, text, text, text).hashed() for n, text in enumerate(texts)]
    lock.write(entries)
    assert lock.entries() == entries
    assert "\u202e" not in lock.path.read_text(), "what turns text around is written as its number"
