"""Chat templates that are rendered on the client: the ones of Byzer-LLM, and how they are applied.

A model that carries its own chat template needs none of these.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from byzerllm.errors import InvalidRequestError

RoleMapping = dict[str, Any]

DEFAULT_SYSTEM_MESSAGE = "You are a helpful assistant. Think it over and answer the user question correctly."

_INSERTION_HOLE = "<｜fim▁hole｜>"


def _identity(text: str) -> str:
    return text


def _cut_at(*marks: str) -> Callable[[str], str]:
    def clean(text: str) -> str:
        for mark in marks:
            text = text.split(mark, 1)[0]
        return text

    return clean


class _Format:
    """A format function of a template: its own, or the built-in one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, template: "Template", owner: type) -> Callable[..., str]:
        if self._name in template.own_formats:
            return template.own_formats[self._name]
        from byzerllm import formats

        built_in: Callable[..., str] = getattr(formats, self._name.removesuffix("_func"))
        return built_in

    def __set__(self, template: "Template", func: Callable[..., str] | None) -> None:
        template.own_formats.pop(self._name, None)
        if func is not None:
            template.own_formats[self._name] = func


class Template:
    """How the messages of a conversation become one prompt, and how an answer is cleaned.

    Args:
        role_mapping: the words around the messages; see `ByzerLLM.setup_role_mapping`.
        generation_config: generation keys of every request.
        clean_func: what the text of an answer becomes.
        function_calling_format_func: how tools are offered; `None` for the built-in words, here and below.
        response_class_format_func: how a class is asked for.
        response_class_format_after_chat_func: how an answer is turned into a class.

    Example:
        >>> words = {"user_role": "Question: ", "assistant_role": "Answer: "}
        >>> llm.setup_template("base", Template(words, clean_func=str.strip))
    """

    function_calling_format_func = _Format()
    response_class_format_func = _Format()
    response_class_format_after_chat_func = _Format()

    def __init__(
        self,
        role_mapping: RoleMapping,
        generation_config: dict[str, Any] | None = None,
        clean_func: Callable[[str], str] = _identity,
        function_calling_format_func: Callable[..., str] | None = None,
        response_class_format_func: Callable[..., str] | None = None,
        response_class_format_after_chat_func: Callable[..., str] | None = None,
    ) -> None:
        self.role_mapping = role_mapping
        self.generation_config: dict[str, Any] = {} if generation_config is None else generation_config
        self.clean_func = clean_func
        self.own_formats: dict[str, Callable[..., str]] = {}
        """The format functions that are not built in, by name."""
        self.function_calling_format_func = function_calling_format_func
        self.response_class_format_func = response_class_format_func
        self.response_class_format_after_chat_func = response_class_format_after_chat_func


def _around(prefix: str, suffix: str) -> Callable[..., str]:
    """A role function; `t` is the mapping's word for the role and `v` the content."""

    def apply(t: str, v: str) -> str:
        return f"{prefix}{v}{suffix}"

    return apply


def _nothing(t: str, v: str) -> str:
    return ""


def _insertion_system(t: str, v: str) -> str:
    if _INSERTION_HOLE not in v:
        raise InvalidRequestError(
            f"the system message of the code insertion template must contain {_INSERTION_HOLE} "
            "where the code is to be inserted",
            param="conversations",
        )
    return f"<｜fim▁begin｜>{v}<｜fim▁end｜>"


def _chat_markup(generation_config: dict[str, Any], clean_func: Callable[[str], str]) -> Template:
    return Template(
        role_mapping={
            "user_role": "<|im_start|>user\n",
            "assistant_role": "<|im_end|>\n<|im_start|>assistant\n",
            "system_msg": "<|im_start|>system\n{system_msg}<|im_end|>",
            "system_msg_func": _around("<|im_start|>system\n", "<|im_end|>"),
        },
        generation_config=generation_config,
        clean_func=clean_func,
    )


class Templates:
    """The templates of Byzer-LLM. Each call returns a fresh object.

    Example:
        >>> llm.setup_template("base", Templates.qwen())
        >>> Templates.default().role_mapping["user_role"]
        'User:'
    """

    @staticmethod
    def default_format(t: str, v: str) -> str:
        """The mapping's word for the role, then the content.

        Args:
            t: the word.
            v: the content.

        Example:
            >>> Templates.default_format("User:", "Hello")
            'User:Hello'
        """
        return f"{t}{v}"

    @staticmethod
    def qwen() -> Template:
        """Qwen chat models."""
        return _chat_markup(
            {"generation.repetition_penalty": 1.1, "generation.stop_token_ids": [151643, 151645]},
            _cut_at("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        )

    @staticmethod
    def yi() -> Template:
        """Yi chat models."""
        return _chat_markup({"generation.stop_token_ids": [7]}, _identity)

    @staticmethod
    def llama() -> Template:
        """Llama 2 chat models."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": "<s>[INST] <<SYS>>\n{system_msg}\n<</SYS>>\n[/INST]</s>",
                "system_msg_func": _around("<s>[INST] <<SYS>>\n", "\n<</SYS>>\n[/INST]</s>"),
                "user_role_func": _around("<s>[INST] ", " [/INST]"),
                "assistant_role_func": _around(" ", " </s>"),
            }
        )

    @staticmethod
    def deepseek_code_chat() -> Template:
        """DeepSeek Coder, as a chat."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "### Response:\n",
                "system_msg": "{system_msg}",
                "system_msg_func": _around("", ""),
                "user_role_func": _around("### Instruction:\n", ""),
                "assistant_role_func": _around("### Response:\n", "\n<|EOT|>"),
            },
            generation_config={"generation.stop_token_ids": [32021]},
        )

    @staticmethod
    def deepseek_code_insertion() -> Template:
        """DeepSeek Coder, filling a hole in the code that is the system message."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": "<｜fim▁begin｜>{system_msg}<｜fim▁end｜>",
                "system_msg_func": _insertion_system,
                "user_role_func": _nothing,
                "assistant_role_func": _nothing,
            }
        )

    @staticmethod
    def deepseek_code_completion() -> Template:
        """DeepSeek Coder, continuing the code that is the system message."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": "{system_msg}",
                "system_msg_func": _around("", ""),
                "user_role_func": _nothing,
                "assistant_role_func": _nothing,
            }
        )

    @staticmethod
    def default() -> Template:
        """`User:` and `Assistant:`, for models without a template of their own."""
        return Template(
            role_mapping={
                "user_role": "User:",
                "assistant_role": "Assistant:",
                "system_msg": DEFAULT_SYSTEM_MESSAGE,
                "system_msg_func": _around("", ""),
            }
        )

    @staticmethod
    def empty() -> Template:
        """The contents alone."""
        return Template(
            role_mapping={
                "user_role": "",
                "assistant_role": "",
                "system_msg": "",
                "system_msg_func": _around("", ""),
            }
        )


def default_role_mapping() -> RoleMapping:
    """The mapping that applies when nothing was set up and the model has no template.

    Example:
        >>> default_role_mapping()["user_role"]
        'User:'
    """
    return {"user_role": "User:", "assistant_role": "Assistant:", "system_msg": DEFAULT_SYSTEM_MESSAGE}


def render(conversations: Iterable[Mapping[str, Any]], role_mapping: Mapping[str, Any]) -> str:
    """Renders messages into one prompt that ends where the assistant is to speak.

    Args:
        conversations: messages with roles.
        role_mapping: the words around them.

    Example:
        >>> render([{"role": "user", "content": "Hello"}], default_role_mapping()).splitlines()
        ['User:Hello', 'Assistant:']
    """
    parts: list[str] = []
    last_role = None
    for message in conversations:
        last_role, content = message["role"], message["content"]
        if last_role == "system":
            parts.append(_apply(role_mapping, "system_msg", "system_msg_func", content, prefix=False))
        elif last_role == "user":
            parts.append(_apply(role_mapping, "user_role", "user_role_func", content))
        elif last_role == "assistant":
            parts.append(_apply(role_mapping, "assistant_role", "assistant_role_func", content))
    if last_role == "user":
        parts.append(role_mapping.get("assistant_role", ""))
    return "\n".join(parts)


def _apply(mapping: Mapping[str, Any], word: str, function: str, content: str, prefix: bool = True) -> str:
    if mapping.get(function) is not None:
        return str(mapping[function](t=mapping.get(word, ""), v=content))
    return f"{mapping.get(word, '')}{content}" if prefix else content


def generate_instruction_from_history(
    ins: str,
    his: list[dict[str, str]],
    role_mapping: Mapping[str, str] = {"user": "User", "assistant": "Assistant"},
) -> str:
    """The older form of a prompt: `User:` and `Assistant:` lines, or the bare instruction without history.

    Args:
        ins: what the user says now.
        his: the messages before.
        role_mapping: the words for `user` and `assistant`.

    Example:
        >>> before = [{"role": "user", "content": "France?"}]
        >>> generate_instruction_from_history("And Italy?", before).splitlines()
        ['User:France?', 'User:And Italy?', 'Assistant:']
    """
    if not his:
        return ins
    lines = []
    for message in his:
        if message["role"] == "system":
            lines.append(message["content"])
        else:
            lines.append(f"{role_mapping.get(message['role'], message['role'])}:{message['content']}")
    if ins:
        lines.append(f"{role_mapping['user']}:{ins}")
    lines.append(f"{role_mapping['assistant']}:")
    return "\n".join(lines)
