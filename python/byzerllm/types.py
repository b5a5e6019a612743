"""The data types of the client API."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Role:
    """Who speaks."""

    User = "user"
    Assistant = "assistant"
    System = "system"


class InferBackend:
    """Where Byzer-LLM ran a model. All of them run on byzerllm's own engine; the word is kept as a label."""

    Transformers = "transformers"
    VLLM = "ray/vllm"
    LLAMA_CPP = "llama_cpp"
    DeepSpeed = "ray/deepspeed"
    # The spellings that Byzer-LLM's documents use.
    transformers = Transformers
    vllm = VLLM
    llama_cpp = LLAMA_CPP
    deepspeed = DeepSpeed


@dataclass
class LLMHistoryItem:
    """One message of a conversation."""

    role: str
    content: str


@dataclass
class LLMRequest:
    """A plain request: one instruction or several."""

    instruction: str | list[str]
    embedding: bool = False
    max_length: int = 4096
    top_p: float = 0.95
    temperature: float = 0.1


@dataclass
class LLMResponse:
    """An answer, the request item that it answers and what is known about it."""

    output: str | list[float] | list[list[int]]
    input: str | dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from byzerllm import display

        return display.response(self.output, self.metadata)


@dataclass
class LLMFunctionCallResponse:
    """An answer whose calls were executed."""

    response: LLMResponse
    """The answer itself."""
    values: list[Any]
    """What the called functions returned, in the order of the calls; those that failed are left out."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """`reason` says what went wrong and is empty otherwise, `selected_functions` names what was called, and `calls`
    holds each call with its `name`, `arguments` and `value` or `error`."""

    def _repr_html_(self) -> str:
        from byzerllm import display

        return display.value(self.values, self.metadata, self.response)


@dataclass
class LLMClassResponse:
    """An answer as an object of a class."""

    response: LLMResponse
    """The answer itself."""
    value: Any | None
    """The object, or `None`: then the metadata say why."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """`reason` says what went wrong and is empty otherwise; `attempts` is how often the model was asked."""

    def _repr_html_(self) -> str:
        from byzerllm import display

        return display.value(self.value, self.metadata, self.response)


@dataclass
class FintuneRequestExtra:
    """Options of a fine-tuning request (the spelling is Byzer-LLM's)."""

    max_seq_length: int = 1024
    num_train_epochs: int = 1
    logging_steps: int = 100
    save_steps: int = 100
    extra_params: dict[str, Any] = field(default_factory=dict)


@dataclass
class FintuneRequest:
    """A fine-tuning request (the spelling is Byzer-LLM's)."""

    model_path: str
    pretrained_model_type: str
    input_data_path: str
    extra_params: FintuneRequestExtra = field(default_factory=FintuneRequestExtra)


@dataclass
class ExecuteCodeResponse:
    """The outcome of executed code."""

    status: int
    output: str
    code: str
    prompt: str
    variables: dict[str, Any] = field(default_factory=dict)


class EventName(Enum):
    """When an event callback runs."""

    BEFORE_CALL_MODEL = "before_call_model"
    AFTER_CALL_MODEL = "after_call_model"


@dataclass
class LLMMetadata:
    """What is known about a client's default model."""

    context_window: int = 8192
    num_output: int = 256
    is_chat_model: bool = False
    is_function_calling_model: bool = False
    model_name: str = "unknown"
    system_role: str = Role.System


EventCallbackResult = tuple[bool, Any | None]
EventCallback = Callable[..., EventCallbackResult]


class SingleOutputMeta:
    """What is known about a streamed answer.

    All items of one stream share one object: token counts and the finish reason are filled in when the answer ends.
    """

    def __init__(
        self,
        input_tokens_count: int = 0,
        generated_tokens_count: int = 0,
        reasoning_content: str = "",
        finish_reason: str = "",
        first_token_time: float = 0.0,
        extra_info: dict[str, Any] | None = None,
    ) -> None:
        self.input_tokens_count = input_tokens_count
        self.generated_tokens_count = generated_tokens_count
        self.reasoning_content = reasoning_content
        self.finish_reason = finish_reason
        self.first_token_time = first_token_time
        self.extra_info: dict[str, Any] = {} if extra_info is None else extra_info

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"SingleOutputMeta({fields})"


class SingleOutput:
    """One text with what is known about it."""

    def __init__(self, text: str, metadata: SingleOutputMeta | None = None) -> None:
        self.text = text
        self.metadata = SingleOutputMeta() if metadata is None else metadata


class StreamOutputs:
    """The outputs of one step of a stream."""

    def __init__(self, outputs: list[SingleOutput]) -> None:
        self.outputs = outputs


class StreamItem(tuple):  # type: ignore[type-arg]
    """One item of a stream: a pair of text and meta that also behaves like its text.

    `for text, meta in stream` and `for line in stream: print(line + "\\n")` both work.
    """

    __slots__ = ()

    def __new__(cls, text: str, meta: SingleOutputMeta) -> "StreamItem":
        return super().__new__(cls, (text, meta))

    @property
    def text(self) -> str:
        """The text."""
        return str(self[0])

    @property
    def meta(self) -> SingleOutputMeta:
        """What is known about the answer so far."""
        meta: SingleOutputMeta = self[1]
        return meta

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: Any) -> Any:
        if isinstance(other, str):
            return self[0] + other
        return super().__add__(other)

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, str):
            return other + self[0]
        return NotImplemented
