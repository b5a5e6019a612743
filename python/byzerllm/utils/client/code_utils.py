"""Code in the answers of models: finding it, telling its language, running it."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from byzerllm.errors import InvalidRequestError, UnsupportedError

CODE_BLOCK_PATTERN = r"```[ \t]*(\w+)?[ \t]*\r?\n(.*?)\r?\n[ \t]*```"
"""A fenced block: its language, if it has one, and its body."""

DEFAULT_MODEL = "chat"
UNKNOWN = "unknown"
TIMEOUT_MSG = "Timeout"
DEFAULT_TIMEOUT = 600

_SINGLE_LINE = r"`([^`\n]+)`"

_INTERPRETERS = {
    "python": (sys.executable, "py"),
    "sh": ("sh", "sh"),
    "bash": ("bash", "sh"),
    "shell": ("sh", "sh"),
}

CodeBlocks = list[tuple[str, str]]


def content_str(content: str | Sequence[str | dict[str, Any]] | None) -> str:
    """The text of a message's content; an image among its parts is written as `<image>`.

    Args:
        content: a text, a list of parts, or `None`.

    Raises:
        InvalidRequestError: a part is neither text nor an image.

    Example:
        >>> content_str([{"type": "text", "text": "See "}, {"type": "image_url"}])
        'See <image>'
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    text = ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif part.get("type") == "text":
            text += str(part.get("text", ""))
        elif part.get("type") in ("image", "image_url"):
            text += "<image>"
        else:
            raise InvalidRequestError(f"a part of a content is neither text nor an image: {part!r}")
    return text


def infer_lang(code: str) -> str:
    """`"sh"` for a call of python or pip, `"python"` for what compiles, else `"unknown"`.

    Args:
        code: the code.

    Example:
        >>> infer_lang("pip install numpy"), infer_lang("print(1)"), infer_lang("SELECT 1 FROM t")
        ('sh', 'python', 'unknown')
    """
    if code.startswith(("python ", "python3 ", "pip")):
        return "sh"
    try:
        compile(code, "<code>", "exec")
    except (SyntaxError, ValueError):
        return UNKNOWN
    return "python"


def extract_code(
    text: str | Sequence[str | dict[str, Any]] | None,
    pattern: str = CODE_BLOCK_PATTERN,
    detect_single_line_code: bool = False,
) -> CodeBlocks:
    """The blocks of code in a text with their languages, `""` where none is written.

    A text without a block is one block of `"unknown"`.

    Args:
        text: an answer, as text or parts.
        pattern: a regular expression with two groups, language and code.
        detect_single_line_code: code between single backticks counts too, with the language `""`.

    Raises:
        InvalidRequestError: a part is neither text nor an image.

    Example:
        >>> extract_code("Say `hello`.", detect_single_line_code=True)
        [('', 'hello')]
    """
    text = content_str(text)
    if detect_single_line_code:
        both = re.compile(f"{CODE_BLOCK_PATTERN}|{_SINGLE_LINE}", re.DOTALL)
        return [
            ("", found[3].strip()) if found[3] else ((found[1] or "").strip(), found[2].strip())
            for found in both.finditer(text)
        ]
    blocks: CodeBlocks = re.findall(pattern, text, flags=re.DOTALL)
    return blocks or [(UNKNOWN, text)]


def check_target_codes_exists(codes: Iterable[tuple[str, str]], target_langs: Iterable[str]) -> bool:
    """Whether one of the blocks is of one of the languages.

    Args:
        codes: what `extract_code` returned.
        target_langs: the languages.

    Example:
        >>> check_target_codes_exists([("python", "print(1)")], ["python", "sh"])
        True
    """
    return bool(get_target_codes(codes, target_langs))


def get_target_codes(codes: Iterable[tuple[str, str]], target_langs: Iterable[str]) -> CodeBlocks:
    """The blocks that are of one of the languages.

    Args:
        codes: what `extract_code` returned.
        target_langs: the languages.

    Example:
        >>> get_target_codes([("python", "print(1)"), ("json", "{}")], ["json"])
        [('json', '{}')]
    """
    wanted = set(target_langs)
    return [(lang, code) for lang, code in codes if lang in wanted]


def get_value_from_llm_str(v: str, k: str, default_v: Any) -> Any:
    """The value of a key in the last block of JSON that has it.

    Args:
        v: an answer.
        k: the key.
        default_v: what is returned where no block has it.

    Example:
        >>> get_value_from_llm_str('{"city": "Paris"}', "city", None)
        'Paris'
    """
    import json

    for lang, code in reversed(extract_code(v)):
        if lang not in ("json", UNKNOWN, ""):
            continue
        try:
            found = json.loads(code)
        except ValueError:
            continue
        if isinstance(found, dict) and k in found:
            return found[k]
    return default_v


def execute_code(
    code: str | None = None,
    timeout: float | None = None,
    filename: str | None = None,
    work_dir: str | None = None,
    use_docker: Any = None,
    lang: str = "python",
) -> tuple[int, str, None]:
    """Runs code, or a file that is there, in a process of its own: its exit status, what it printed, and no
    image.

    It has every right of this user: run only what you trust, and leave what a model wrote to the sandbox of
    `llm.impl`. A failure tells the standard error; one that took too long is `(1, "Timeout", None)`.

    Args:
        code: the code; without it `filename` is run as it is.
        timeout: seconds; 600 unless given.
        filename: where the code is written, relative to `work_dir`; a temporary file unless given.
        work_dir: the directory that it runs in; the system's temporary one unless given.
        use_docker: refused when it asks for Docker.
        lang: `python`, `sh`, `bash` or `shell`.

    Raises:
        InvalidRequestError: neither code nor a file is given.
        UnsupportedError: Docker, or another language.

    Example:
        >>> status, printed, _ = execute_code("print(1 + 1)", timeout=60)
        >>> status, printed.strip()
        (0, '2')
    """
    if code is None and filename is None:
        raise InvalidRequestError("give code or filename", param="code")
    if use_docker:
        raise UnsupportedError(
            "execute_code(use_docker=…) is not supported by this version; leave it out", param="use_docker"
        )
    if lang not in _INTERPRETERS:
        known = ", ".join(_INTERPRETERS)
        raise UnsupportedError(f"execute_code runs {known}, not {lang!r}", param="lang")
    program, ending = _INTERPRETERS[lang]
    directory = os.path.abspath(work_dir or tempfile.gettempdir())
    path = os.path.join(directory, filename or _temporary_name(code or "", ending))
    try:
        if code is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(code)
        done = subprocess.run(
            [program, path],
            cwd=directory,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout or DEFAULT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, TIMEOUT_MSG, None
    finally:
        if filename is None and os.path.exists(path):
            os.remove(path)
    if done.returncode != 0:
        return done.returncode, done.stderr.replace(os.path.join(directory, ""), ""), None
    return 0, done.stdout, None


def _temporary_name(code: str, ending: str) -> str:
    digest = hashlib.md5(code.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return f"tmp_code_{digest}_{os.getpid()}.{ending}"


def eval_function_completions(
    responses: Sequence[str],
    definition: str,
    test: str | None = None,
    entry_point: str | None = None,
    assertions: str | None = None,
    timeout: float | None = 3,
    use_docker: Any = None,
) -> dict[str, Any]:
    """Runs several versions of a function against tests: which is the first that passes.

    With `test` and `entry_point`, `check(entry_point)` of the test decides about each (`expected_success`,
    `success`); without, `assertions` choose one (`index_selected`, `succeed_assertions`).

    Args:
        responses: each the body of `definition`, or all of the function.
        definition: the function's head.
        test: code that defines `check`.
        entry_point: the function's name.
        assertions: code that fails for a wrong version.
        timeout: seconds for each run.
        use_docker: as in `execute_code`.

    Raises:
        InvalidRequestError: neither `test` nor `assertions` is given.

    Example:
        >>> versions = ["    return x", "    return 2 * x"]
        >>> found = eval_function_completions(versions, "def f(x):\\n", assertions="assert f(2) == 4")
        >>> found["index_selected"]
        1
    """
    if test is None and assertions is None:
        raise InvalidRequestError("give test with entry_point, or assertions", param="assertions")

    def passes(response: str, check: str) -> bool:
        code = _completed(response, definition) + f"\n{check}"
        return execute_code(code, timeout=timeout, use_docker=use_docker)[0] == 0

    chosen = None
    if assertions is not None:
        chosen = next((index for index, one in enumerate(responses) if passes(one, assertions)), None)
    result: dict[str, Any] = {
        "index_selected": len(responses) - 1 if chosen is None else chosen,
        "succeed_assertions": chosen is not None,
        "assertions": assertions,
    }
    if test is not None:
        successes = [passes(response, f"{test}\ncheck({entry_point})") for response in responses]
        share = sum(successes) / len(successes) if successes else 0.0
        result["expected_success"] = 1 - (1 - share) ** len(successes)
        result["success"] = (
            any(successes) if assertions is None else bool(successes and successes[result["index_selected"]])
        )
    return result


def _completed(response: str, definition: str) -> str:
    """The function as code: definitions that a response brings along win over the given one."""
    [(_, body), *_] = extract_code(response)
    return body if body.lstrip().startswith(("def ", "import ", "from ", "class ")) else definition + body
