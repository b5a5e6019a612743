"""Names of a module that live elsewhere and are imported when somebody asks for them."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from byzerllm.absent import names as absent_names


def names(module: str, homes: Mapping[str, str], absent: str = "", modules: str = "") -> Callable[[str], Any]:
    """A module's `__getattr__`: `homes` are modules with the names that live there, spaces between them, `absent` the
    names that this version does not have, and `modules` those below the module.
    """
    places = {name: home for home, listed in homes.items() for name in listed.split()}
    below = frozenset(modules.split())
    missing = absent_names(module, absent)

    def find(name: str) -> Any:
        if name in below:
            return import_module(f"{module}.{name}")
        home = places.get(name)
        return missing(name) if home is None else getattr(import_module(home), name)

    return find
