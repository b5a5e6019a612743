"""`byzerllm run`: runs a Python program as plain python does, with a stand-in for Ray where no cluster answers."""

import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from byzerllm import ray_stand_in


class Arguments:
    """What stands after `run`."""

    def __init__(self, strict: bool, is_module: bool, words: list[str]) -> None:
        self.strict = strict
        self.is_module = is_module
        self.words = words
        """The program and its own arguments."""


def understood(argv: list[str]) -> Arguments | None:
    """The arguments of a program to run; `None` for those that the native command line answers: help and mistakes."""
    strict = is_module = False
    for index, word in enumerate(argv):
        if word == "--strict":
            strict = True
        elif word in ("-m", "--module"):
            is_module = True
        elif word.startswith("-"):
            return None
        else:
            return Arguments(strict, is_module, argv[index:])
    return None


def run(arguments: Arguments) -> int:
    """Runs a program as `__main__`. Returns its exit status where it has not been raised as `SystemExit`."""
    if arguments.strict:
        os.environ["BYZERLLM_STRICT"] = "1"
    ray_stand_in.install()
    name, *rest = arguments.words
    sys.argv = [name, *rest]
    if arguments.is_module:
        return _run_module(name)
    return _run_file(name)


def _run_file(name: str) -> int:
    path = os.path.abspath(name)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(f"byzerllm run: can't open file {path!r}: {error.strerror}", file=sys.stderr)
        return 2
    _search_in(os.path.dirname(os.path.realpath(path)))
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __builtins__=__builtins__,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", path),
    )
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        _raise_as(error, None)
    _execute(code, main)
    return 0


def _run_module(name: str) -> int:
    import importlib.util

    _search_in(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ImportError as error:
        print(f"byzerllm run: no module {name!r} can be found: {error}", file=sys.stderr)
        return 1
    code = getattr(spec.loader, "get_code", lambda _: None)(name) if spec is not None else None
    if spec is None or code is None:
        print(f"byzerllm run: no module {name!r} that can be run", file=sys.stderr)
        return 1
    sys.argv[0] = spec.origin or name
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=spec.origin,
        __builtins__=__builtins__,
        __cached__=spec.cached,
        __loader__=spec.loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    _execute(code, main)
    return 0


def _search_in(directory: str) -> None:
    """Imports look into the program's directory first; the place of our own start goes."""
    if not getattr(sys.flags, "safe_path", False) and sys.path:
        sys.path[0] = directory


def _execute(code: CodeType, main: ModuleType) -> None:
    sys.modules["__main__"] = main
    try:
        exec(code, main.__dict__)  # noqa: S102 - what it is for
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - raised again
        assert error.__traceback__ is not None
        _raise_as(error, error.__traceback__.tb_next)


def _raise_as(error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Raises an error that will be shown with this traceback, which does not know of us."""
    hook = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, shown: TracebackType | None) -> None:
        sys.excepthook = hook
        if value is error:
            shown = trace
        hook(kind, value.with_traceback(shown), shown)

    sys.excepthook = show
    raise error
