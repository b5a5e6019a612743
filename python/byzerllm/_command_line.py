"""The console script `byzerllm`: the same command line as the native binary."""

import signal
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status; `argv` is without the program's name."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["run"]:
        from byzerllm import program

        # The native command would only start a second interpreter.
        arguments = program.understood(words[1:])
        if arguments is not None:
            return program.run(arguments)
    from byzerllm import _native

    # Python's own handler only sets a flag, which nobody reads while native code runs. With the system's default
    # Ctrl-C ends a command at once, and a command that drains first installs its own handler over it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.main(["byzerllm", *words])
