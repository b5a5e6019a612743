"""`python -m byzerllm.utils.client.entrypoints.openai.api_server` starts `byzerllm serve`.

Takes the flags of Byzer-LLM's server. What the server cannot honour is refused with the reason; flags of `byzerllm
serve` itself may follow.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C and returns the exit status; `argv` is without the program's name."""
    from byzerllm._command_line import main as command_line

    return command_line(serve_arguments(sys.argv[1:] if argv is None else argv, os.environ))


def serve_arguments(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command line of `byzerllm serve` that does what `argv` asks for; exits with a reason where none does."""
    parser = _parser()
    given, rest = parser.parse_known_args(argv)
    if given.api_key is not None or environment.get("BYZERLLM_API_KEY"):
        name = "--api-key" if given.api_key is not None else "BYZERLLM_API_KEY"
        parser.error(
            f"{name} is not supported: the server makes its keys itself and stores no plain ones. "
            "Make one with `byzerllm keys create --name NAME`; from then on the server asks for it"
        )
    if given.served_model_name is not None:
        parser.error(
            "--served-model-name is not supported: requests name the deployment. "
            "Deploy under this name: `byzerllm deploy --name NAME --model PATH`"
        )
    if given.prompt_template not in (None, "auto"):
        parser.error("--prompt-template is not supported: the checkpoint's own chat template is used")
    if given.response_role != "assistant":
        parser.error("--response-role is not supported: answers have the role assistant")
    if given.allow_credentials:
        parser.error("--allow-credentials is not supported: the server knows no cookies")
    for name in ("allowed_methods", "allowed_headers"):
        if getattr(given, name) != ["*"]:
            flag = "--" + name.replace("_", "-")
            parser.error(f"{flag} is not supported: allowed origins may use every route that their key opens")
    arguments = ["serve", "--port", str(given.port)]
    for name in ("host", "ssl_keyfile", "ssl_certfile"):
        value = getattr(given, name)
        if value is not None:
            arguments += ["--" + name.replace("_", "-"), value]
    for origin in given.allowed_origins:
        if origin == "*":
            parser.error(
                "--allowed-origins '[\"*\"]' is not supported: every web page could use the models. "
                "Name the origins: --allowed-origins '[\"https://app.example\"]'"
            )
        arguments += ["--allow-origin", origin]
    return arguments + _LOG_LEVELS[given.uvicorn_log_level] + rest


_LOG_LEVELS: dict[str, list[str]] = {"warning": [], "info": ["-v"], "debug": ["-vv"], "trace": ["-vv"]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m byzerllm.utils.client.entrypoints.openai.api_server",
        description="OpenAI-compatible server: `byzerllm serve` with the flags of Byzer-LLM.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", help="the address to listen on [default: 127.0.0.1]")
    add("--port", type=int, default=8000, help="the port; 0 takes any free one [default: 8000]")
    add(
        "--allowed-origins",
        type=_texts,
        default=[],
        metavar="JSON",
        help="web origins that may call the server",
    )
    add("--allowed-methods", type=_texts, default=["*"], metavar="JSON", help='only ["*"]')
    add("--allowed-headers", type=_texts, default=["*"], metavar="JSON", help='only ["*"]')
    add("--allow-credentials", action="store_true", help="not supported")
    add("--served-model-name", help="not supported")
    add("--ssl-keyfile", metavar="FILE", help="the certificate's private key (PEM)")
    add("--ssl-certfile", metavar="FILE", help="serve https with this certificate (PEM)")
    add("--uvicorn-log-level", choices=list(_LOG_LEVELS), default="warning", help="how much to log")
    add("--api-key", help="not supported, see `byzerllm keys create`; BYZERLLM_API_KEY neither")
    add("--prompt-template", help='only "auto": the checkpoint\'s own')
    add("--response-role", default="assistant", help='only "assistant"')
    return parser


def _texts(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON list of strings")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
