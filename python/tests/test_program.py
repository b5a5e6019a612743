"""`byzerllm run`: programs see what they see under plain python, and Ray or its stand-in."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import PATIENCE

RUN = [sys.executable, "-m", "byzerllm", "run"]


@pytest.fixture
def run(tmp_path):
    """Runs a program with `byzerllm run`, or with plain python."""

    def run(source, *arguments, options=(), name="program.py", plain=False, **environment):
        path = tmp_path / name
        path.write_text(source)
        variables = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "BYZERLLM_"))
        }
        variables.update(RAY_TMPDIR=str(tmp_path), **environment)
        command = [sys.executable, str(path)] if plain else [*RUN, *options, str(path)]
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            env=variables,
            cwd=tmp_path,
            timeout=PATIENCE,
            check=False,
        )

    return run


def test_a_program_that_begins_with_ray_deploys_and_answers(run, checkpoint):
    program = f"""
import ray
from byzerllm.utils.client import ByzerLLM, LLMRequest, InferBackend

assert not ray.is_initialized()
ray.init(address="auto", namespace="default", ignore_reinit_error=True)
ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()
llm.setup_gpus_per_worker(4).setup_num_workers(1)
llm.setup_infer_backend(InferBackend.transformers)
llm.deploy(model_path={checkpoint!r}, pretrained_model_type="custom/auto", udf_name="llama2_chat", infer_params={{}})
llm_client = ByzerLLM()
llm_client.setup_template("llama2_chat", "auto")
v = llm.chat_oai(model="llama2_chat", conversations=[{{"role": "user", "content": "hello"}}], llm_config={{"max_length": 4}})
print(isinstance(v[0].output, str), ray.is_initialized())
ray.shutdown()
print(ray.is_initialized())
"""
    done = run(program)
    assert done.stdout.split() == ["True", "True", "False"], done.stderr
    assert done.stderr.count("no cluster answers") == 1
    assert done.stderr.count("num_gpus=4") == 1, "one notice"


def test_ray_is_missing_without_run(run):
    assert "ModuleNotFoundError" in run("import ray", plain=True).stderr


SEES = """
import sys, os, pickle, __main__
import neighbour
class Thing: pass
assert pickle.loads(pickle.dumps(Thing())).__class__ is Thing
print(sys.argv[1:], os.path.basename(sys.argv[0]), os.path.basename(__file__), __name__, __spec__, __package__)
print(sys.path[0] == os.path.dirname(os.path.abspath(__file__)), __main__.__dict__ is globals(), __doc__)
print(sorted({name for name in globals() if name.startswith("__")} - {"__annotations__", "__package__"}))
"""


def test_a_program_sees_what_it_sees_under_python(run, tmp_path):
    (tmp_path / "neighbour.py").write_text("")
    arguments = ["--my_option", "-v", "a b"]
    expected, found = run(SEES, *arguments, plain=True), run(SEES, *arguments)
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    1 / 0\nf()",
        "def f(:\n    pass",
        "raise SystemExit(3)",
        "import sys; sys.exit('stopped')",
        "raise SystemExit",
        "import os; os._exit(7)",
        "import atexit; atexit.register(print, 'bye'); raise ValueError('é')",
        "import sys\nsys.excepthook = lambda *a: print('mine', a[0].__name__, a[2].tb_lineno)\n1 / 0",
        "raise KeyboardInterrupt",
        "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('2') from error",
    ],
)
def test_it_ends_as_under_python(run, source):
    expected, found = run(source, plain=True), run(source)
    assert found.returncode == expected.returncode
    without_threads = [
        [line for line in text.splitlines() if "Thread-" not in line]
        for text in (found.stderr, expected.stderr)
    ]
    assert without_threads[0] == without_threads[1]
    assert found.stdout == expected.stdout


def test_ctrl_c_reaches_the_program(run):
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(30)"
    done = run(source)
    assert done.returncode == -signal.SIGINT and "KeyboardInterrupt" in done.stderr


def test_modules_run_too(run, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "from . import part; import sys; print(part.word, sys.argv[1:], __name__)"
    )
    (package / "part.py").write_text("word = 'part'")
    arguments = [*RUN, "-m", "package", "--x"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "part ['--x'] __main__", done.stderr
    done = subprocess.run(
        [*RUN, "-m", "package.none"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1 and "package.none" in done.stderr


def test_mistakes_have_the_exit_code_of_mistakes(tmp_path):
    for arguments, message in (
        (["missing.py"], "missing.py"),
        (["--stritc", "program.py"], "--stritc"),
        ([], "PROGRAM"),
    ):
        done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2 and message in done.stderr, done
    assert "Ray" in subprocess.run([*RUN, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_native_command_hands_over_to_python(tmp_path):
    (tmp_path / "program.py").write_text(
        "import ray, sys; print(ray.is_initialized(), sys.argv[1:]); sys.exit(5)"
    )
    command = [*RUN, "--python", sys.executable, "program.py", "--my_flag"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("False ['--my_flag']", 5), done.stderr
    command = [*RUN, "--python", str(tmp_path / "nopython"), "program.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2 and "nopython" in done.stderr


# What the stand-in is.

TRY = """
def attempt(use):
    try:
        print("done", use())
    except Exception as error:
        print(type(error).__name__, str(error).split(";")[0])
"""


def test_the_rest_of_ray_says_that_there_is_no_cluster(run):
    program = f"""{TRY}
import ray, ray.util.queue
from ray.job_config import JobConfig
attempt(lambda: ray.remote(print))
attempt(lambda: ray.get_actor("chat"))
attempt(lambda: JobConfig(code_search_path=[]))
attempt(lambda: ray.util.queue.Queue())
attempt(ray.init)
attempt(ray.init)
print(hasattr(ray, "__version__"))
from byzerllm.utils.client import ByzerLLM
try:
    ByzerLLM().chat_oai("hi", model="nobody")
except ray.exceptions.RayTaskError as error:
    print("caught", type(error).__name__)
"""
    lines = run(program).stdout.splitlines()
    assert lines[0].startswith("UnsupportedError ray.remote needs a Ray cluster, and none answers")
    assert lines[1].startswith("UnsupportedError ray.get_actor needs")
    assert lines[2].startswith("UnsupportedError ray.job_config.JobConfig needs")
    assert lines[3].startswith("UnsupportedError ray.util.queue.Queue needs")
    assert lines[4].startswith("done") and lines[5].startswith("RuntimeError ray.init() was called twice")
    assert lines[6:] == ["False", "caught NotFoundError"]


def test_what_init_asks_for_is_told_once_and_refused_under_strict(run):
    program = f"{TRY}\nimport ray\nattempt(lambda: ray.init(num_gpus=8, log_to_driver=False)['namespace'])"
    done = run(program)
    assert done.stdout.strip() == "done default" and "without effect: num_gpus=8" in done.stderr
    for how in ({"options": ["--strict"]}, {"BYZERLLM_STRICT": "1"}):
        assert run(program, **how).stdout.startswith("UnsupportedError strict: ray.init(num_gpus=8)")


def test_strict_reaches_deployments(run, checkpoint):
    program = f"""{TRY}
from byzerllm.utils.client import ByzerLLM
attempt(lambda: ByzerLLM().setup_gpus_per_worker(4).deploy({checkpoint!r}, udf_name="chat"))
attempt(lambda: ByzerLLM(strict=False).setup_gpus_per_worker(4).deploy({checkpoint!r}, udf_name="chat")["engine"])
"""
    lines = run(program, options=["--strict"]).stdout.splitlines()
    assert lines[0].startswith("UnsupportedError strict: 'chat'") and "num_gpus=4" in lines[0]
    assert lines[1] == "done byzerllm"


# Where Ray is installed.

RAY = """
calls = []
def init(**options):
    calls.append(options)
    return "the real one"
def is_initialized():
    return bool(calls)
def remote(function):
    return "remote"
"""


@pytest.fixture
def real_ray(tmp_path):
    """A package that stands for an installed Ray."""
    package = tmp_path / "site" / "ray"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(RAY)
    (package / "util.py").write_text("here = True")
    return str(tmp_path / "site")


@pytest.fixture
def head():
    """Somebody who listens where the head of a cluster would."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: [listener.accept() for _ in range(8)], daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


USE = "import ray\nprint(ray.init(address='auto'), ray.remote(print), ray.is_initialized())\nimport ray.util\nprint(ray.util.here)"


def test_ray_itself_is_used_where_a_cluster_answers(run, real_ray, head, tmp_path):
    done = run(USE, PYTHONPATH=f"{real_ray}:{os.environ.get('PYTHONPATH', '')}", RAY_ADDRESS=head)
    assert done.stdout.splitlines() == ["the real one remote True", "True"], done.stderr
    assert done.stderr == ""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(head)
    done = run(USE, PYTHONPATH=f"{real_ray}:{os.environ.get('PYTHONPATH', '')}")
    assert done.stdout.splitlines() == ["the real one remote True", "True"], done.stderr


def test_the_stand_in_is_used_where_ray_is_installed_and_no_cluster_answers(run, real_ray):
    program = "import ray\nprint(ray.init(address='auto')['address'], ray.is_initialized())"
    done = run(
        program, PYTHONPATH=f"{real_ray}:{os.environ.get('PYTHONPATH', '')}", RAY_ADDRESS="127.0.0.1:1"
    )
    assert done.stdout.strip() == "auto True", done.stderr


def test_an_address_that_answers_brings_ray_itself(run, real_ray, head):
    program = (
        f"import ray\nprint(ray.init(address={head!r}, namespace='x'), ray.remote(print))\nprint(ray.calls)"
    )
    done = run(program, PYTHONPATH=f"{real_ray}:{os.environ.get('PYTHONPATH', '')}")
    assert done.stdout.splitlines() == [
        "the real one remote",
        f"[{{'address': '{head}', 'namespace': 'x', 'ignore_reinit_error': False}}]",
    ], done.stderr


def test_connect_cluster_uses_ray_where_it_answers(run, real_ray, head):
    program = "import byzerllm\nprint(byzerllm.connect_cluster())\nimport ray\nprint(ray.calls)"
    path = f"{real_ray}:{os.environ.get('PYTHONPATH', '')}"
    lines = run(program, PYTHONPATH=path, RAY_ADDRESS=head).stdout.splitlines()
    assert lines[0] == "{}" and "'namespace': 'default'" in lines[1]
    assert run("import byzerllm\nprint(byzerllm.connect_cluster())", PYTHONPATH=path).stdout.strip() == "{}"
