"""The lock file: implementations that were reviewed once and are replayed without a model.

`python -m byzerllm.implementations.lock_file check` says which entries were changed by hand; `approve` writes their
hashes anew, which is a reviewer's word for them.
"""

import os
import sys
import tempfile
import unicodedata
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from byzerllm.errors import ByzerLLMError
from byzerllm.implementations.stub import digest

NAME = "byzerllm.lock.toml"
VERSION = 1

_HEADER = f"""# Functions that a model wrote. Review a change here like any other code. A source that is changed by hand is refused
# until `python -m byzerllm.implementations.lock_file approve` has written its new hash.
version = {VERSION}
"""


class LockFileError(ByzerLLMError, ValueError):
    """The lock file cannot be read, holds something else than was approved, or lacks what an offline program needs."""

    kind = "lock_file"
    code = "lock_file"


@dataclass(frozen=True)
class Entry:
    """One implementation."""

    name: str
    """The function with its module."""
    signature: str
    instruction: str
    model: str
    """The model that wrote it."""
    request: str
    """A checksum of what the model was told: signature, docstring, response class, instruction."""
    source: str
    hash: str = ""

    def sum(self) -> str:
        """The hash that belongs to this entry."""
        return digest({key: value for key, value in asdict(self).items() if key != "hash"})

    def hashed(self) -> "Entry":
        """The entry with its hash."""
        return Entry(**{**asdict(self), "hash": self.sum()})


class LockFile:
    """A lock file on disk. It is read again for every question: it is small, and others may write it."""

    def __init__(self, path: "str | os.PathLike[str]" = NAME) -> None:
        self.path = Path(path).expanduser().absolute()

    def entries(self) -> list[Entry]:
        """Everything in the file, changed or not."""
        from byzerllm import _native

        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise LockFileError(f"{self.path} cannot be read: {error}") from None
        try:
            document = _native.parse_toml(text)
        except ValueError as error:
            raise LockFileError(f"{self.path} is no TOML: {error}") from None
        if document.get("version") != VERSION:
            raise LockFileError(
                f"{self.path} is of version {document.get('version')!r}; this reads {VERSION}"
            )
        wanted = {field.name for field in fields(Entry)}
        found = []
        for index, entry in enumerate(document.get("implementation", [])):
            if not isinstance(entry, dict) or set(entry) != wanted:
                raise LockFileError(
                    f"{self.path}: implementation {index + 1} must have exactly {', '.join(sorted(wanted))}"
                )
            if not all(isinstance(value, str) for value in entry.values()):
                raise LockFileError(f"{self.path}: implementation {index + 1} must hold text only")
            found.append(Entry(**entry))
        return found

    def find(self, name: str, instruction: str, model: str | None) -> Entry | None:
        """The approved entry of a function. Without a model, that of any."""
        for entry in self.entries():
            if (entry.name, entry.instruction) == (name, instruction) and model in (None, entry.model):
                if entry.hash != entry.sum():
                    raise LockFileError(
                        f"{self.path}: {entry.name} is not what was approved: its hash is another one. Review it, then "
                        f"run `python -m byzerllm.implementations.lock_file approve {self.path}`"
                    )
                return entry
        return None

    def keep(self, entry: Entry) -> None:
        """Adds an entry in the place of one for the same function, instruction and model."""
        key = (entry.name, entry.instruction, entry.model)
        others = [it for it in self.entries() if (it.name, it.instruction, it.model) != key]
        self.write([*others, entry.hashed()])

    def write(self, entries: list[Entry]) -> None:
        """Writes the whole file; readers see the old one or the new one."""
        text = _HEADER
        for entry in sorted(entries, key=lambda it: (it.name, it.instruction, it.model)):
            lines = [f"{key} = {toml_text(value)}\n" for key, value in asdict(entry).items()]
            text += f"\n[[implementation]]\n{''.join(lines)}"
        descriptor, partial = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(partial, 0o644)
            os.replace(partial, self.path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def toml_text(value: str) -> str:
    """Text in TOML: on lines of its own, as it stands, where it has several."""
    several = "\n" in value
    if several and "'''" not in value and all(char in "\n\t" or _is_visible(char) for char in value):
        return f"'''\n{value}'''"
    escaped = "".join(_escaped(char) for char in value)
    return f'"{escaped}"'


def _is_visible(char: str) -> bool:
    """Whether a reader sees a character for what it is; those that turn text around are escaped."""
    return not unicodedata.category(char).startswith("C")


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if short or _is_visible(char):
        return short or char
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def main(arguments: list[str]) -> int:
    """`check [PATH]` or `approve [PATH]`."""
    if not arguments or arguments[0] not in ("check", "approve") or len(arguments) > 2:
        print(f"usage: python -m byzerllm.implementations.lock_file check|approve [{NAME}]", file=sys.stderr)
        return 2
    lock = LockFile(*arguments[1:])
    try:
        entries = lock.entries()
    except LockFileError as error:
        print(error, file=sys.stderr)
        return 1
    changed = [entry for entry in entries if entry.hash != entry.sum()]
    for entry in changed:
        print(f"changed: {entry.name} ({entry.instruction or 'no instruction'})")
    if arguments[0] == "approve":
        lock.write([entry.hashed() for entry in entries])
        return 0
    print(f"{len(entries)} implementations, {len(changed)} changed")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
