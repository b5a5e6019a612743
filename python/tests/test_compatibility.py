"""Every name of Byzer-LLM's surface, and the page that says which of them work: `docs/compatibility.md`.

The page is made by these tests: `make reference` writes it again.
"""

import asyncio
import importlib
import inspect
import json
import logging
import os
import types
from typing import Annotated, Any

import pydantic
import pytest
from conftest import CHECKPOINTS, REPOSITORY, edited
from surface import IMPORTS, NAMES

import byzerllm
from byzerllm import parameters, ray_stand_in, records, utils
from byzerllm.absent import Absent
from byzerllm.errors import InvalidRequestError, UnavailableError, UnsupportedError
from byzerllm.utils import client as client_module
from byzerllm.utils import openai_utils
from byzerllm.utils.client import ByzerLLM
from byzerllm.utils.nontext import Audio, Image, TagExtractor

# Programs still write it.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method:DeprecationWarning")

PAGE = REPOSITORY / "docs" / "compatibility.md"
CHECKPOINT = str(CHECKPOINTS / "qwen2-bf16")
CHAT = "surface-chat"

WORKS, DIFFERS, NOT_YET = "works", "differs", "not yet"


# What the checks use.


class Word(pydantic.BaseModel):
    word: str


def add(a: Annotated[int, "one number"], b: Annotated[int, "another"] = 2) -> int:
    """Adds two numbers."""
    return a + b


def impl_me() -> Word:
    """Says a word."""


def greet(name: str) -> str:
    """Hello, {{ name }}!"""


CALL = json.dumps(
    {
        "id": "x",
        "type": "function",
        "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}],
    }
)


def has(function: Any, wanted: str) -> bool:
    """Whether a function's first parameters are these, with these defaults."""
    expected = inspect.signature(eval(f"lambda {wanted}: 0")).parameters.values()
    found = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    for position, parameter in enumerate(expected):
        assert position < len(found) and found[position].name == parameter.name, (wanted, found)
        if parameter.default is not inspect.Parameter.empty:
            default = found[position].default
            assert default == parameter.default or (not default and not parameter.default), (wanted, found)
    return True


def raises(kind: type[Exception], use: Any, words: str | None = None) -> bool:
    with pytest.raises(kind, match=words):
        use()
    return True


def says(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def rendered(llm: ByzerLLM, template: Any, with_system: bool = False) -> str:
    llm.get_meta = types.MethodType(lambda self, model, llm_config={}: {}, llm)
    llm.setup_template("m", template)
    system = [{"role": "system", "content": "system"}] if with_system else []
    return llm.generate_instruction_from_history("m", system + says("你好"), llm.mapping_role_mapping["m"])


def replaced_meta(llm: ByzerLLM) -> bool:
    llm.get_meta = types.MethodType(lambda self, model, llm_config={}: {"model_deploy_type": "saas"}, llm)
    item = llm.chat_oai("hi", model="m", only_return_prompt=True)[0].metadata
    return item["history"] == [] and item["instruction"] == "hi"


def answered_by_callback(llm: ByzerLLM, chat: str) -> bool:
    given = [{"predict": "from the callback", "metadata": {}, "input": {}}]
    llm.add_event_callback(client_module.EventName.BEFORE_CALL_MODEL, lambda *arguments: (False, given))
    return llm.chat_oai("hi", model=chat)[0].output == "from the callback"


def simple_deployment(llm: Any) -> bool:
    llm.deploy(
        "",
        "saas/openai",
        "x",
        {"saas.api_key": "k", "saas.model": "m", "saas.base_url": "http://127.0.0.1:1/v1"},
    )
    assert llm.is_model_exist("x") and llm.get_meta("x")["model_deploy_type"] == "saas"
    llm.undeploy("x")
    return not llm.is_model_exist("x")


async def listed(stream: Any) -> list[Any]:
    return [item async for item in stream]


TOOLS = {
    one.__name__.rpartition(".")[2]: one
    for one in (
        *(asyncio, json, byzerllm, parameters, records, utils, openai_utils),
        *(InvalidRequestError, UnavailableError, Audio, Image, TagExtractor),
        *(Word, add, impl_me, greet, has, raises, says, rendered, replaced_meta, answered_by_callback),
        *(simple_deployment, listed),
    )
}


def namespace() -> dict[str, Any]:
    """What an expression may use."""
    names = {name: getattr(client_module, name) for name in IMPORTS["byzerllm.utils.client"].split()}
    names.update(
        {name: getattr(utils, name) for name in ("SingleOutput", "SingleOutputMeta", "StreamOutputs")}
    )
    finder = ray_stand_in.Finder()
    module = finder.create_module(types.SimpleNamespace(name="ray"))
    return {
        **names,
        **TOOLS,
        "llm": ByzerLLM(),
        "chat": CHAT,
        "checkpoint": CHECKPOINT,
        "awq": str(CHECKPOINTS / "awq-gemm"),
        "embedder": str(CHECKPOINTS / "encoders" / "bert-mean"),
        "reranker": str(CHECKPOINTS / "encoders" / "distilbert-rank"),
        "short": {"max_length": 2, "temperature": 0},
        "long": {"max_length": 64, "temperature": 0},
        "stand_in": ray_stand_in,
        "stand_in_module": module,
        "CALL": CALL,
    }


def imported(module: str, name: str) -> str:
    """The state of an import path."""
    found = getattr(importlib.import_module(module), name)
    return NOT_YET if isinstance(found, Absent) else WORKS


def state(expression: str, note: str) -> str:
    """The state of a name: its check must hold, or say that it is not there yet."""
    try:
        holds = eval(expression, namespace())
    except UnsupportedError as error:
        assert str(error), expression
        return NOT_YET
    assert holds, expression
    return DIFFERS if note else WORKS


ROWS = [(section, *row) for section, rows in NAMES.items() for row in rows]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The tiny model with room for the prompts of functions, for all checks together."""
    directory = tmp_path_factory.mktemp("runtime-of-the-surface")
    roomy = edited(
        CHECKPOINTS / "qwen2-bf16",
        tmp_path_factory.mktemp("models") / "roomy",
        config={"max_position_embeddings": 8192},
        tokenizer_config={"model_max_length": 8192},
    )
    directory.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    logging.getLogger("byzerllm").setLevel(logging.ERROR)
    llm = ByzerLLM()
    llm.deploy(roomy, udf_name=CHAT)
    yield
    for name in (CHAT, "other", "x", "emb", "rr"):
        llm.undeploy(name, force=True)
    logging.getLogger("byzerllm").setLevel(logging.NOTSET)
    if before is None:
        os.environ.pop("XDG_RUNTIME_DIR", None)
    else:
        os.environ["XDG_RUNTIME_DIR"] = before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_name_does_what_it_did_or_says_that_it_is_not_there(deployed, row):
    _, _, expression, *note = row
    assert state(expression, "".join(note)) in (WORKS, DIFFERS, NOT_YET)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in IMPORTS for name in IMPORTS[module].split()]
)
def test_a_path_can_be_imported(module, name):
    assert imported(module, name) in (WORKS, NOT_YET)


def test_no_name_is_listed_twice():
    names = [(section, name) for section, name, *_ in ROWS]
    assert len(names) == len(set(names)) and len(names) > 150


HEAD = """# Compatibility with Byzer-LLM

Made from the tests: each line is a check in `python/tests/surface.py` that runs with the others. `works` says that the check
of Byzer-LLM's behaviour holds, `differs` how it is meant to be different, and `not yet` that using the name raises
`UnsupportedError`. See the [migration guide](guides/migration.md) for what to change, which is nothing in most programs.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    counts = dict.fromkeys((WORKS, DIFFERS, NOT_YET), 0)
    parts = []
    for section, rows in NAMES.items():
        lines = [f"## {section}", "", "| name | state | how it differs |", "|---|---|---|"]
        for name, expression, *note in rows:
            found = state(expression, "".join(note))
            counts[found] += 1
            shown = "".join(note) if found == DIFFERS else ""
            lines.append(f"| `{cell(name)}` | {found} | {cell(shown)} |".replace("  |", " |"))
        parts.append("\n".join(lines))
    lines = [
        "## Import paths",
        "",
        "Every one of these imports succeeds.",
        "",
        "| module | works | not yet |",
        "|---|---|---|",
    ]
    for module, names in IMPORTS.items():
        states = {name: imported(module, name) for name in names.split()}
        for found in states.values():
            counts[found] += 1
        cells = [
            ", ".join(f"`{name}`" for name in states if states[name] == found) for found in (WORKS, NOT_YET)
        ]
        lines.append(f"| `{module}` | {cells[0]} | {cells[1]} |".replace("  |", " |"))
    total = f"{counts[WORKS]} names work, {counts[DIFFERS]} differ, {counts[NOT_YET]} are not there yet.\n"
    return "\n".join([HEAD, total, "\n".join(lines), "", "\n\n".join(parts), ""])


def test_the_page_is_current(deployed):
    expected = page()
    if os.environ.get("BYZERLLM_UPDATE") == "1":
        PAGE.write_text(expected, encoding="utf-8")
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    different = [line for line in expected.splitlines() if line not in found.splitlines()]
    assert found == expected, (
        f"run `make reference` and review the change of docs/compatibility.md: {different[:5]}"
    )
