"""Runs code in this process and catches what it prints."""

import contextlib
import io
import traceback
from collections.abc import Mapping
from typing import Any


def exec_capture_output(code: str, target_names: Mapping[str, Any] = {}) -> tuple[int, str, dict[str, Any]]:
    """Runs trusted code in a fresh namespace: `(0, what it printed, variables)`, or `(1, traceback, {})`.

    The code has every right of this process: what a model wrote belongs into the sandbox of `llm.impl`.
    Standard output is restored whatever happens.

    Args:
        code: the code.
        target_names: the variables to return, of those that the code made; the values here are not read.

    Example:
        >>> exec_capture_output("x = 6 * 7", {"x": True})
        (0, '', {'x': 42})
    """
    printed = io.StringIO()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exec(compile(code, "<code>", "exec"), namespace)  # noqa: S102 - what it is for
    except (Exception, SystemExit):  # noqa: BLE001 - told as a traceback
        return 1, traceback.format_exc(), {}
    return 0, printed.getvalue(), {name: namespace[name] for name in target_names if name in namespace}
