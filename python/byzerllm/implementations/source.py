"""Finds the code in a model's answer."""

import ast

from byzerllm.utils.client.code_utils import extract_code

NO_CODE = "No Python block found"

_PYTHON = ("python", "python3", "py", "")


def python_source(text: str, name: str) -> str | None:
    """The code that defines the function: the whole text, else the last block that does, else the last of Python.

    `None` when there is no code at all.
    """
    if defines(text, name):
        return _tidy(text)
    blocks = [code for lang, code in _blocks(text) if lang.lower() in _PYTHON and parsed(code) is not None]
    for code in reversed(blocks):
        if defines(code, name):
            return _tidy(code)
    if blocks:
        return _tidy(blocks[-1])
    tree = parsed(text)
    # One word, or a sentence in quotes, is Python too, and no code.
    if tree is None or all(isinstance(part, ast.Expr) for part in tree.body):
        return None
    return _tidy(text)


def parsed(code: str) -> ast.Module | None:
    """The tree of Python code, or `None` when it is none."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defines(code: str, name: str) -> bool:
    """Whether code has a function, or another name, of that name at its top."""
    tree = parsed(code)
    return tree is not None and any(name in _named(part) for part in tree.body)


def _named(part: ast.stmt) -> list[str]:
    if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [part.name]
    if isinstance(part, ast.Assign):
        return [target.id for target in part.targets if isinstance(target, ast.Name)]
    return []


def _blocks(text: str) -> list[tuple[str, str]]:
    blocks = extract_code(text)
    if "```" in text and text.count("```") % 2:
        # An answer that was cut, or whose last fence is missing.
        blocks += extract_code(f"{text}\n```")[-1:]
    return [(lang, code) for lang, code in blocks if lang != "unknown"]


def _tidy(code: str) -> str:
    return code.replace("\r\n", "\n").strip("\n") + "\n"
