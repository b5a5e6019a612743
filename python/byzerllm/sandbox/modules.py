"""Which modules a child loads before it is locked up, and which files it can read then."""

import ast
import os
import site
import sys
import sysconfig
from collections.abc import Iterator

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
)


def imported(source: str) -> set[str]:
    """The modules that a source names in its imports; none when it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def is_allowed(name: str, allowed: "tuple[str, ...] | list[str] | None") -> bool:
    """Whether a module, or one that it lies in, is in the list."""
    if allowed is None:
        return True
    parts = name.split(".")
    return any(".".join(parts[:end]) in allowed for end in range(1, len(parts) + 1))


def import_path() -> list[str]:
    """Where the parent finds modules, as absolute paths."""
    return list(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))


def readable() -> list[str]:
    """What a child may read: Python, installed packages, shared libraries and time zones. No programs of the user."""
    return sorted({path for path in _readable() if os.path.isabs(path)})


def _readable() -> Iterator[str]:
    yield from _SYSTEM
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield sysconfig.get_path(name)
    for entry in import_path():
        if os.path.basename(entry) in ("site-packages", "dist-packages", "lib-dynload"):
            yield entry
    if site.ENABLE_USER_SITE:
        yield site.getusersitepackages()
    # An interpreter outside the system's directories brings its own shared libraries.
    yield os.path.join(sys.base_prefix, "lib") if sys.base_prefix not in ("/", "/usr") else "/usr/lib"
