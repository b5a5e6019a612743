"""Names of Byzer-LLM that this version does not have.

They can be imported, so that a program that mentions them starts; using one raises `UnsupportedError` with its name.
"""

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

from byzerllm.errors import UnsupportedError


class Absent:
    """Stands for a class or function that does not exist yet. Calling, subclassing or looking into it raises."""

    def __init__(self, module: str, name: str) -> None:
        self.__name__ = name
        self.__qualname__ = name
        self.__module__ = module
        self.__doc__ = f"Raises `UnsupportedError`: {module}.{name} does not exist in this version."

    def __repr__(self) -> str:
        return f"<{self.__module__}.{self.__name__}, not supported by this version>"

    def _refuse(self) -> NoReturn:
        path = f"{self.__module__}.{self.__name__}"
        raise UnsupportedError(f"{path} is not supported by this version", param=self.__name__)

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        self._refuse()

    def __mro_entries__(self, bases: Any) -> NoReturn:
        self._refuse()

    def __instancecheck__(self, instance: Any) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        # Tools that look at objects ask for names like these and take the usual answer.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        self._refuse()


def names(module: str, absent: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that knows names that are absent, written with spaces between them."""
    known = frozenset(absent.split())

    def find(name: str) -> Any:
        if name in known:
            return Absent(module, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


def modules(package: str, listed: Mapping[str, str]) -> None:
    """Makes modules below a package whose names are absent, each with its names."""
    for path, absent in listed.items():
        module = ModuleType(f"{package}.{path}", "Import paths of Byzer-LLM, see `byzerllm.absent`.")
        module.__dict__.update(__path__=[], __getattr__=names(module.__name__, absent))
        sys.modules[module.__name__] = module
        parent, _, name = module.__name__.rpartition(".")
        setattr(sys.modules[parent], name, module)
