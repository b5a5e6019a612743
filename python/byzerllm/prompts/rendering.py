"""Renders the templates of prompt functions: docstrings in the dialect of Jinja2.

The native engine renders, so that no package is needed. It knows Jinja2's blocks, tests, loops, macros and whitespace
control; the filters here are those whose result depends on how Python writes or reads a value.
"""

import inspect
from collections.abc import Callable
from typing import Any


def format_str_jinja2(s: str, /, **kwargs: Any) -> str:
    """A template with its variables filled in. What a function in the template raises comes through.

    Args:
        s: the template, in Jinja2's language.
        kwargs: the variables.

    Raises:
        InvalidRequestError: the template cannot be rendered.

    Example:
        >>> format_str_jinja2("Hello, {{ name }}!", name="you")
        'Hello, you!'
    """
    from byzerllm import _native
    from byzerllm.prompts.filters import FILTERS, GLOBALS

    return _native.render_template(s, {**GLOBALS, **kwargs}, FILTERS)


def format_prompt_jinja2(func: Callable[..., Any] | str, /, **kwargs: Any) -> str:
    """A template without its indentation, with its variables filled in.

    The indentation is that of the first line that is not blank.

    Args:
        func: a function whose docstring is the template, or the text.
        kwargs: the variables.

    Raises:
        InvalidRequestError: the template cannot be rendered.

    Example:
        >>> format_prompt_jinja2("    Hello, {{ name }}!", name="you")
        'Hello, you!'
    """
    return format_str_jinja2(without_indentation(docstring(func)), **kwargs)


def docstring(func: Callable[..., Any] | str) -> str:
    """The template that a function carries; without a docstring it is empty."""
    return func if isinstance(func, str) else inspect.unwrap(func).__doc__ or ""


def without_indentation(text: str) -> str:
    """The text less the indentation of its first line that is not blank; less indented lines lose what they have."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    width = len(first) - len(first.lstrip())
    kept = "\n".join(line[min(width, len(line) - len(line.lstrip())) :] for line in lines)
    return kept + "\n" if text.endswith("\n") else kept
