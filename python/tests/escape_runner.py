"""Runs hostile code in a sandbox, as the user that started it, and prints what it could do as JSON.

A program of its own because the tests start it as another user as well.
"""

import json
import os
import sys

from byzerllm.sandbox import SandboxedFunction, SandboxSettings, SandboxUnavailableError

MODULES = (
    "ctypes",
    "fcntl",
    "mmap",
    "os",
    "resource",
    "signal",
    "socket",
    "stat",
    "subprocess",
    "sys",
    "threading",
    "time",
)


def main():
    request = json.loads(sys.argv[1])
    target = {**request["target"], "parent": os.getpid()}
    # What a sandbox must prevent is possible here.
    with open(target["canary"]) as file:
        assert "canary" in file.read()
    descriptor = os.open(target["canary"], os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    with open(request["source"]) as file:
        source = file.read()
    answers = []
    for job in request["jobs"]:
        # Without any file layer, nothing can be imported later; so that everything is tried there too, it is allowed.
        settings = SandboxSettings(
            **{
                "time_limit": 20,
                "allowed_modules": MODULES if job.get("preload") else None,
                **job.get("limits", {}),
            }
        )
        function = SandboxedFunction(source, job["function"], settings, tuple(job.get("without", ())))
        try:
            answers.append({"value": function(target), "layers": function.layers()})
        except SandboxUnavailableError as error:
            answers.append({"error": "SandboxUnavailableError", "message": str(error)})
        except Exception as error:
            answers.append({"error": type(error).__name__, "message": str(error)})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
