"""`python -m byzerllm.utils.client.entrypoints.openai.api_server` starts `byzerllm serve`, which knows the flags of
Byzer-LLM's server: what it cannot honour is refused with the reason.
"""

import os
import sys
from collections.abc import Sequence

_KEY = "BYZERLLM_API_KEY"


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C and returns the exit status; `argv` is without the program's name."""
    from byzerllm._command_line import main as command_line

    # For Byzer-LLM's server this was the key to ask for; a server that asked for none would be a surprise.
    if os.environ.get(_KEY):
        print(
            f"error: {_KEY} is not supported: the server makes its keys itself and stores no plain ones\n"
            " help: Make one with `byzerllm keys create --name NAME`; from then on the server asks for it.",
            file=sys.stderr,
        )
        return 2
    return command_line(["serve", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
