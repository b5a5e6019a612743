"""The docstrings of what programs use: every parameter by name, what is raised, an example; and examples that are true."""

import ast
import dataclasses
import doctest
import enum
import importlib
import inspect
import os
import re
import textwrap
from itertools import pairwise

import pytest

from byzerllm.not_yet import NotYet

PUBLIC = {
    "byzerllm.client": "ByzerLLM default_chat_wrapper",
    "byzerllm.cluster": "connect_cluster",
    "byzerllm.errors": "ByzerLLMError",
    "byzerllm.implementations.execution": "ImplementationError",
    "byzerllm.model_names": "get_llm_names get_model_info get_single_llm",
    "byzerllm.prompts.functions": "LazyPrompt PromptFunction PromptRunner prompt prompt_lazy",
    "byzerllm.prompts.meta": "MetaHolder MetaOutput",
    "byzerllm.prompts.rendering": "format_prompt_jinja2 format_str_jinja2",
    "byzerllm.sandbox": "SandboxError SandboxSettings SandboxedFunction",
    "byzerllm.simple": "SimpleByzerLLM",
    "byzerllm.templates": "Template Templates default_role_mapping generate_instruction_from_history render",
    "byzerllm.types": """EventName ExecuteCodeResponse FintuneRequest FintuneRequestExtra LLMClassResponse
    LLMFunctionCallResponse LLMHistoryItem LLMMetadata LLMRequest LLMResponse SingleOutput SingleOutputMeta StreamItem
    StreamOutputs""",
    "byzerllm.utils.client.code_utils": """check_target_codes_exists content_str eval_function_completions execute_code
    extract_code get_target_codes get_value_from_llm_str infer_lang""",
    "byzerllm.utils.client.message_utils": """check_error_count copy_error_count fail_message get_error_count
    inc_error_count is_success padding_messages_expand padding_messages_merge success_message termindate_message
    un_termindate_message""",
    "byzerllm.utils.client.parallel_utils": "chat_oai get_single_result",
    "byzerllm.utils.clock": "timeit timeout",
    "byzerllm.utils.execution": "exec_capture_output",
    "byzerllm.utils.nontext": "Audio Image",
    "byzerllm.utils.text": """generate_file_md5 generate_str_md5 get_type_name is_annotated_type load_json_str print_flush
    random_uuid""",
}

# Examples that need no model: they are run.
RUN = (
    "byzerllm.errors",
    "byzerllm.model_names",
    "byzerllm.prompts.meta",
    "byzerllm.prompts.rendering",
    "byzerllm.templates",
    "byzerllm.types",
    "byzerllm.utils",
)
MODEL_WORDS = re.compile(r"\b(llm|holder|get_single_llm|answers)\b")

# Examples of classes show a chain of these, and one of the templates.
SHOWN_BY_THE_CLASS = re.compile(r".*\.(setup_?\w*|Templates\.(?!default_format)\w+)$")


def things():
    """Every public name with the object whose docstring it has."""
    for module, names in PUBLIC.items():
        for name in names.split():
            thing = getattr(importlib.import_module(module), name)
            yield pytest.param(thing, id=f"{module}.{name}")
            if not inspect.isclass(thing):
                continue
            for member, owner in members(thing):
                found = inspect.getattr_static(owner, member)
                yield pytest.param(getattr(found, "__func__", found), id=f"{module}.{name}.{member}")


def members(cls):
    """The public methods and properties of a class that the package wrote, with their owners."""
    for owner in cls.__mro__:
        if owner is NotYet or not owner.__module__.startswith("byzerllm"):
            continue
        for name, value in vars(owner).items():
            is_member = isinstance(value, (property, staticmethod, classmethod)) or inspect.isfunction(value)
            if is_member and not name.startswith("_") and inspect.getattr_static(cls, name) is value:
                yield name, owner


def parameters(thing):
    """What a caller gives."""
    if isinstance(thing, property) or (inspect.isclass(thing) and not has_own_parameters(thing)):
        return []
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


def has_own_parameters(cls):
    if issubclass(cls, enum.Enum):
        return False
    ours = [owner for owner in cls.__mro__ if owner.__module__.startswith("byzerllm")]
    return any(name in vars(owner) for owner in ours for name in ("__init__", "__new__"))


def named(text):
    """The parameters that the section `Args` names."""
    section = re.search(r"^Args:\n((?: .*\n?|\n(?= ))+)", text, re.MULTILINE)
    if section is None:
        return []
    entries = re.sub(r"\n {8,}", " ", section[1])
    return [
        name
        for entry in re.findall(r"^    ([\w, ]+?):(?: |$)", entries, re.MULTILINE)
        for name in entry.split(", ")
    ]


def documented_fields(cls):
    """The fields of a dataclass that have a docstring of their own below them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    return [
        field.target.id
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    ]


def source_of(thing):
    if isinstance(thing, property):
        return inspect.getsource(thing.fget)
    if inspect.isclass(thing):
        return "".join(
            textwrap.dedent(inspect.getsource(vars(thing)[name]))
            for name in ("__init__", "__post_init__")
            if name in vars(thing) and inspect.getsourcefile(vars(thing)[name])
        )
    return inspect.getsource(thing)


def raised(thing):
    """The classes that the code itself raises."""
    try:
        tree = ast.parse(textwrap.dedent(source_of(thing)))
    except OSError:  # what the dataclass decorator made
        return set()
    called = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return {
        error.func.id for error in called if isinstance(error, ast.Call) and isinstance(error.func, ast.Name)
    }


@pytest.mark.parametrize("thing", list(things()))
def test_a_docstring_says_everything(thing):
    assert thing.__doc__ and thing.__doc__.strip(), "there is no docstring"
    text = inspect.cleandoc(thing.__doc__)
    wanted, said = parameters(thing), named(text)
    known = said + (documented_fields(thing) if dataclasses.is_dataclass(thing) else [])
    assert [name for name in wanted if name not in known] == [], "parameters that the docstring does not name"
    assert [name for name in said if name not in wanted] == [], "the docstring names what is no parameter"
    assert [error for error in raised(thing) if error not in text] == [], "errors that it does not name"


def test_every_name_has_an_example():
    without = []
    for case in things():
        [thing] = case.values
        if ">>> " not in (thing.__doc__ or "") and not SHOWN_BY_THE_CLASS.match(case.id):
            without.append(case.id)
    assert without == []


def test_examples_without_a_model_are_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = 0
    for case in things():
        [thing] = case.values
        text = inspect.cleandoc(thing.__doc__ or "")
        if not case.id.startswith(RUN) or MODEL_WORDS.search(text.partition("Example:")[2]):
            continue
        home = max((module for module in PUBLIC if case.id.startswith(f"{module}.")), key=len)
        scope = {**vars(importlib.import_module("byzerllm.types")), **vars(importlib.import_module(home))}
        scope["os"] = os
        scope["ByzerLLM"] = importlib.import_module("byzerllm.client").ByzerLLM
        test = doctest.DocTestParser().get_doctest(text, scope, case.id, None, None)
        said = []
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        assert said == [], "".join(said)
        count += len(test.examples)
    assert count > 20
