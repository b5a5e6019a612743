"""What hostile code can do in the sandbox: nothing. As root and as an ordinary user, with layers missing, and with
every import allowed, because the list of modules is no boundary.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import byzerllm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

HERE = Path(__file__).parent
NOBODY = 65534
USERS = ["root", "nobody"] if os.geteuid() == 0 else ["self"]
LAYERS = {
    "every layer": (),
    "without namespaces": ("namespace",),
    "without Landlock": ("landlock",),
    "without a file layer": ("landlock", "namespace"),
}


def reachable(path):
    """Whether everybody may go to a path and read it."""
    path = Path(path).resolve()
    return all(it.stat().st_mode & stat.S_IXOTH for it in path.parents) and path.stat().st_mode & stat.S_IROTH


def python_for_everybody():
    """An interpreter that an ordinary user can run."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if not os.path.exists(candidate) or not reachable(candidate):
            continue
        program = "import sys; print(sys.version_info >= (3, 10), sys.base_prefix)"
        done = subprocess.run([candidate, "-c", program], capture_output=True, text=True, check=False)
        if done.stdout.startswith("True") and reachable(done.stdout.split()[1]):
            return candidate
    pytest.skip("there is no Python that an ordinary user of this machine can run")


@pytest.fixture(scope="module")
def place():
    """A directory that every user can read, with the package where the installed one is out of reach, and a canary."""
    directory = Path(tempfile.mkdtemp(prefix="byzerllm-escapes-"))
    directory.chmod(0o755)
    (directory / "canary").write_text("canary: nobody in the sandbox reads this")
    (directory / "canary").chmod(0o644)
    for name in ("hostile.py", "escape_runner.py"):
        shutil.copy(HERE / name, directory / name)
        (directory / name).chmod(0o644)
    package = Path(byzerllm.__file__).parent
    if not (reachable(package) and all(reachable(it) for it in package.glob("_native*.so"))):
        shutil.copytree(package, directory / "byzerllm", ignore=shutil.ignore_patterns("__pycache__"))
    else:
        (directory / "byzerllm").symlink_to(package)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def listeners(place):
    """Sockets that must not hear anything."""
    open_sockets = []
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, str(place / f"socket-{os.getpid()}")),
        (socket.AF_UNIX, "\0canary"),
    ):
        it = socket.socket(family)
        it.bind(address)
        it.listen()
        it.setblocking(False)
        open_sockets.append(it)
    os.chmod(place / f"socket-{os.getpid()}", 0o777)
    yield open_sockets
    for it in open_sockets:
        it.close()
    (place / f"socket-{os.getpid()}").unlink()


def run(place, user, listeners, jobs):
    """What each job could do."""
    target = {
        "canary": str(place / "canary"),
        "port": listeners[0].getsockname()[1] if listeners else 1,
        "unix": listeners[1].getsockname() if listeners else "/nowhere",
    }
    request = json.dumps({"target": target, "jobs": jobs, "source": str(place / "hostile.py")})
    environment = {**os.environ, "PYTHONPATH": str(place), "SECRET": "canary", "PYTHONDONTWRITEBYTECODE": "1"}
    options = {}
    executable = sys.executable
    if user == "nobody":
        executable = python_for_everybody()
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = subprocess.run(
        [executable, str(place / "escape_runner.py"), request],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("user", USERS)
def test_nothing_gets_through(place, listeners, user):
    cases = [(without, preload) for without in LAYERS.values() for preload in (False, True)]
    jobs = [{"function": "attempt", "without": without, "preload": preload} for without, preload in cases]
    answers = run(place, user, listeners, jobs)
    for (without, preload), answer in zip(cases, answers, strict=True):
        assert "error" not in answer, (without, answer)
        layers = answer["layers"]
        tried = answer["value"]["results"]
        assert not {what: brought for what, brought in tried.items() if brought}, (without, layers)
        if preload or layers["file_layer"] != "no_opens":
            assert len(tried) > 80
        if len(without) == 2:
            assert layers["file_layer"] == "no_opens" and layers["scratch"] is None
        # Each was stopped by the system, and not because it never started.
        assert not [why for why in answer["value"]["stopped"].values() if "Module" in why and tried]
    for listener in listeners:
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (place / "canary").read_text().startswith("canary") and not list(place.glob("hostile-*"))


@pytest.mark.parametrize("user", USERS)
def test_what_it_may_use_is_limited(place, user):
    small = {"memory_bytes": 64 << 20, "scratch_bytes": 4 << 20}
    answers = run(
        place,
        user,
        [],
        [
            {"function": "fill_the_disk", "limits": small},
            {"function": "fill_the_disk", "limits": {**small, "scratch_bytes": 0}},
            {"function": "fill_the_disk", "limits": small, "without": ["namespace"]},
            {"function": "take_memory", "limits": small},
            {"function": "take_memory_past_python", "limits": small},
            {"function": "spin", "limits": {"time_limit": 0.5}},
            {"function": "sleep", "limits": {"time_limit": 0.5}},
            {"function": "overflow", "limits": small},
            {"function": "flood"},
            {"function": "close_everything", "limits": {"time_limit": 1}},
        ],
    )
    disk, no_disk, no_place, memory, mapped, spun, slept, overflown, flooded, closed = answers
    assert disk["value"]["bytes"] <= 4 << 20 and disk["value"]["files"] <= 256
    if disk["layers"]["scratch"]:
        assert disk["value"]["bytes"] >= 2 << 20
    assert no_disk["value"] == no_place["value"] == {"bytes": 0, "files": 0}
    assert memory["error"] == "SandboxMemoryError" and mapped["value"] < 64
    assert spun["error"] == slept["error"] == "SandboxTimeoutError"
    assert overflown["error"] in ("SandboxError", "SandboxMemoryError")
    assert flooded["error"] == "SandboxError" and "output_bytes" in flooded["message"]
    assert closed["error"] in ("SandboxError", "SandboxTimeoutError")


def test_answers_are_believed_no_further_than_they_go(place):
    answers = run(
        place, USERS[0], [], [{"function": it} for it in ("forge", "forge_an_answer", "forge_a_type")]
    )
    lie, unasked, made_up = answers
    assert lie["error"] == "SandboxError" and "output_bytes" in lie["message"]
    assert unasked["error"] == "SandboxError" and "something else than an answer" in unasked["message"]
    assert made_up["error"] == "SandboxError" and "no value has the form" in made_up["message"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the interface is that machine's")
def test_the_interface_of_old_programs_ends_the_process(place):
    (answer,) = run(place, USERS[0], [], [{"function": "old_calls"}])
    assert answer["error"] == "SandboxError" and "SIGSYS" in answer["message"], answer


def test_without_the_filter_nothing_runs(place):
    (answer,) = run(place, USERS[0], [], [{"function": "attempt", "without": ["seccomp"]}])
    assert answer["error"] == "SandboxUnavailableError"
    assert "seccomp" in answer["message"] and 'sandbox="none"' in answer["message"]
