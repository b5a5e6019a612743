"""Checks the documents: the READMEs have the same structure, links lead somewhere, and every code block runs.

A fenced block is `bash` or `python` and is run, or `text` and is not. A comment `<!-- prints: WORDS -->` on the line
after a block says what its standard output must contain. Blocks run against a server that has SmolLM2 deployed as
`chat`, in a directory that holds `model.gguf` and tiny models named `embedder` and `reranker`; with `<!-- alone, prints:
WORDS -->` no server is found. With `<!-- simulated, prints: WORDS -->` the vendors that a block deploys are simulated
(`simulated.py`), and Python runs alone. Blocks that call make run in the checkout, with ONCE=1.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import models
import preflight
import run
import simulated
import wheel
from progress import Problem, Step

ROOT = wheel.ROOT
READMES = (ROOT / "README.md", ROOT / "README-CN.md")
BLOCK_SECONDS = 1800


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    file: Path
    line: int
    language: str
    code: str
    prints: Optional[str]
    alone: bool
    simulated: bool = False

    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def documents() -> List[Path]:
    """Every document of the project."""
    return sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))


def blocks(file: Path) -> List[Block]:
    """The fenced blocks of a document."""
    found: List[Block] = []
    lines = file.read_text(encoding="utf-8").splitlines()
    index = 0
    while index < len(lines):
        fence = re.match(r"\s*```(\w*)\s*$", lines[index])
        if not fence:
            index += 1
            continue
        end = next((n for n in range(index + 1, len(lines)) if lines[n].strip() == "```"), None)
        if end is None:
            raise Problem(f"{file.relative_to(ROOT)}:{index + 1}: the block never ends", "Close it with ```.")
        after = next((line for line in lines[end + 1 : end + 3] if line.strip()), "")
        prints = re.match(r"<!-- (alone, |simulated, )?prints: (.*) -->$", after.strip())
        code = "\n".join(lines[index + 1 : end]) + "\n"
        wanted, where = (prints[2], prints[1] or "") if prints else (None, "")
        played = where.startswith("simulated")
        alone = where.startswith("alone") or (played and fence[1] == "python")
        found.append(Block(file, index + 1, fence[1], code, wanted, alone, played))
        index = end + 1
    return found


def check_structure() -> None:
    """Both READMEs have the same headings by level and the same blocks; every block's language is known."""
    shapes = []
    for readme in READMES:
        text = re.sub(r"```.*?```", "", readme.read_text(encoding="utf-8"), flags=re.S)
        headings = [len(found[1]) for found in re.finditer(r"^(#+) ", text, re.M)]
        shapes.append((headings, [block.language for block in blocks(readme)]))
    if shapes[0] != shapes[1]:
        names = " and ".join(readme.name for readme in READMES)
        raise Problem(f"{names} differ in headings or blocks: {shapes[0]} and {shapes[1]}", "Bring them in step.")
    for file in documents():
        for block in blocks(file):
            if block.language not in ("bash", "python", "text"):
                raise Problem(f"{block.place()}: a block of `{block.language}`", "Mark it bash, python or text.")


def check_links() -> None:
    """Every relative link leads to a file."""
    for file in documents():
        text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (file.parent / target.split("#")[0]).exists():
                raise Problem(f"{file.relative_to(ROOT)} links to {target}, which is not there", "Mend the link.")


@contextmanager
def world(environment: wheel.Environment, everything: List[Block]) -> Iterator["World"]:
    """A server with a deployment, and a directory for the blocks."""
    os.environ.update(simulated.credentials([block.code for block in everything if block.simulated]))
    with tempfile.TemporaryDirectory(prefix="byzerllm-docs-") as name:
        directory = Path(name)
        runtime = directory / "runtime"
        for private in (runtime, directory / "alone"):
            private.mkdir(mode=0o700)
        port, _ = preflight.port(18000, exact=False)
        variables = {key: value for key, value in os.environ.items() if not key.startswith("BYZERLLM_U")}
        variables.update(XDG_RUNTIME_DIR=str(runtime), XDG_STATE_HOME=str(directory / "state"), ONCE="1")
        variables["PATH"] = f"{environment.bin}{os.pathsep}{variables['PATH']}"
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        with Step("model") as step:
            model = models.fetch(models.SMOLLM2, str(environment.python), step)
        (directory / "model.gguf").symlink_to(model)
        for link, name in (("embedder", "bert-mean"), ("reranker", "xlm-roberta-rank-bf16")):
            (directory / link).symlink_to(ROOT / "crates" / "model" / "tests" / "fixtures" / "encoders" / name)
        (directory / ".venv").symlink_to(environment.path)
        vendors = simulated.Vendors(str(environment.bin / "byzerllm"))
        server, log = run.start(str(environment.bin / "byzerllm"), port, directory / "server-state", directory / "log")
        try:
            run.deploy(str(environment.bin / "byzerllm"), f"http://127.0.0.1:{port}", model)
            yield World(directory, port, variables, environment, vendors)
        finally:
            run.stop(server, log)
            vendors.stop()


@dataclass(frozen=True)
class World:
    """Where blocks run."""

    directory: Path
    port: int
    variables: Dict[str, str]
    environment: wheel.Environment
    vendors: Optional[simulated.Vendors] = None

    def run(self, block: Block) -> None:
        """Runs a block and checks what it prints."""
        uses_make = bool(re.search(r"^\s*make\b", block.code, re.M))
        code = block.code.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        variables = dict(self.variables)
        if block.simulated and self.vendors:
            code = self.vendors.rewrite(code, variables)
        command = ["bash", "-euo", "pipefail", "-c", code]
        if block.language == "python":
            command = [str(self.environment.python), "-c", code]
        if block.alone:
            variables["XDG_RUNTIME_DIR"] = str(self.directory / "alone")
        done = subprocess.run(
            command,
            cwd=ROOT if uses_make else self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS,
        )
        wanted = block.prints
        if done.returncode != 0 or (wanted is not None and wanted not in done.stdout):
            print(f"{block.place()}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}", file=sys.stderr)
            reason = "failed" if done.returncode != 0 else f"did not print {wanted!r}"
            raise Problem(f"the block at {block.place()} {reason}", "Its output stands above.")
        if block.simulated and not block.alone:
            simulated.undeploy(str(self.environment.bin / "byzerllm"), block.code, variables, None)


def run_blocks(files: List[Path]) -> None:
    """Runs the blocks of documents in their order; those that call make come first, because they build."""
    everything = [block for file in files for block in blocks(file) if block.language != "text"]
    building = [block for block in everything if re.search(r"^\s*make\b", block.code, re.M)]
    others = [block for block in everything if block not in building]
    environment = wheel.Environment(ROOT / ".venv")
    environment.make()
    count = 0
    seen = set()
    for block in building:
        if block.code in seen:
            continue
        seen.add(block.code)
        began = time.monotonic()
        World(ROOT, 8000, {**os.environ, "ONCE": "1"}, environment).run(block)
        print(f"✓ {block.place()} ({time.monotonic() - began:.1f} s)", flush=True)
        count += 1
    wheel.install(environment, "release")
    with world(environment, others) as place:
        for block in others:
            began = time.monotonic()
            place.run(block)
            print(f"✓ {block.place()} ({time.monotonic() - began:.1f} s)", flush=True)
            count += 1
    print(f"{count} code blocks ran")


def main() -> int:
    """Runs the asked checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["structure", "blocks", "all"])
    what = parser.parse_args().what
    try:
        if what in ("structure", "all"):
            check_structure()
            check_links()
            print("structure and links of the documents are right")
        if what in ("blocks", "all"):
            run_blocks(documents())
    except Problem as problem:
        return problem.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
