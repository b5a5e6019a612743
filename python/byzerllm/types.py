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
    """One message of a conversation.

    Args:
        role: one of `Role`.
        content: the text.

    Example:
        >>> llm.chat_oai([LLMHistoryItem(Role.User, "What is the capital of France?")])
    """

    role: str
    content: str


@dataclass
class LLMRequest:
    """A plain request.

    Args:
        instruction: one text or several.
        embedding: not read.
        max_length: new tokens at most.
        top_p: samples from the likeliest tokens that have this probability together, above 0 and at most 1.
        temperature: 0 takes the likeliest token.

    Example:
        >>> llm.chat("chat", LLMRequest(instruction=["Hello", "Good morning"], max_length=32))
    """

    instruction: str | list[str]
    embedding: bool = False
    max_length: int = 4096
    top_p: float = 0.95
    temperature: float = 0.1


@dataclass
class LLMResponse:
    """An answer, the request item that it answers and what is known about it.

    Args:
        output: the text, an embedding, or token ids.
        input: the request item.
        metadata: `input_tokens_count`, `generated_tokens_count`, `time_cost` and `first_token_time` in
            milliseconds, `speed` in tokens per second, `finish_reason`, `request_id`, `reasoning_content`
            where there is some.

    Example:
        >>> response = llm.chat_oai("What is the capital of France?")[0]
        >>> response.output, response.metadata["finish_reason"]
        ('The capital of France is Paris.', 'stop')
    """

    output: str | list[float] | list[list[int]]
    input: str | dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from byzerllm import display

        return display.response(self.output, self.metadata)


@dataclass
class LLMFunctionCallResponse:
    """An answer whose calls were executed.

    Example:
        >>> done = llm.chat_oai("What time is it?", tools=[compute_now], execute_tool=True)[0]
        >>> done.values or done.metadata["reason"]
        ['2026-01-04 10:00:00']
    """

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
    """An answer as an object of a class.

    Example:
        >>> done = llm.chat_oai("Tell of a brave rabbit", response_class=Story)[0]
        >>> done.value.title if done.value else done.metadata["reason"]
        'The Brave Rabbit'
    """

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
    """Options of a fine-tuning request (the spelling is Byzer-LLM's). Training is not supported by this
    version.

    Args:
        max_seq_length: tokens of an example.
        num_train_epochs: how often all examples are seen.
        logging_steps, save_steps: steps between two lines of the log, and between two checkpoints.
        extra_params: further ones.

    Example:
        >>> FintuneRequestExtra(num_train_epochs=2).max_seq_length
        1024
    """

    max_seq_length: int = 1024
    num_train_epochs: int = 1
    logging_steps: int = 100
    save_steps: int = 100
    extra_params: dict[str, Any] = field(default_factory=dict)


@dataclass
class FintuneRequest:
    """A fine-tuning request (the spelling is Byzer-LLM's). Training is not supported by this version.

    Args:
        model_path: the directory of the model.
        pretrained_model_type: what kind of model it is.
        input_data_path: the file of examples.
        extra_params: the options.

    Example:
        >>> FintuneRequest("/models/qwen", "sft/qwen", "/data/examples.jsonl").extra_params.save_steps
        100
    """

    model_path: str
    pretrained_model_type: str
    input_data_path: str
    extra_params: FintuneRequestExtra = field(default_factory=FintuneRequestExtra)


@dataclass
class ExecuteCodeResponse:
    """The outcome of executed code.

    Args:
        status: the exit status; 0 is success.
        output: what it printed.
        code: the code.
        prompt: what the model was asked.
        variables: values that the code made, by name.

    Example:
        >>> ExecuteCodeResponse(status=0, output="2", code="print(1 + 1)", prompt="one and one").output
        '2'
    """

    status: int
    output: str
    code: str
    prompt: str
    variables: dict[str, Any] = field(default_factory=dict)


class EventName(Enum):
    """When an event callback runs.

    Example:
        >>> EventName.AFTER_CALL_MODEL.value
        'after_call_model'
    """

    BEFORE_CALL_MODEL = "before_call_model"
    AFTER_CALL_MODEL = "after_call_model"


@dataclass
class LLMMetadata:
    """What is known about a client's default model.

    Args:
        context_window: tokens of prompt and answer together.
        num_output: tokens of an answer.
        is_chat_model: whether it takes messages.
        is_function_calling_model: always `False`: nobody asks.
        model_name: the name of the deployment.
        system_role: the role of system messages.

    Example:
        >>> llm.metadata.context_window
        8192
    """

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

    All items of one stream share one object: token counts and the finish reason are filled in when the answer
    ends.

    Args:
        input_tokens_count: tokens of the prompt.
        generated_tokens_count: tokens of the answer.
        reasoning_content: what the model thought, or with `delta_mode` the new part of it.
        finish_reason: why the answer ended; empty until then.
        first_token_time: milliseconds until the first token.
        extra_info: `request_id`, and at the end `time_cost` in milliseconds and `speed` in tokens per second.

    Example:
        >>> for text, meta in llm.stream_chat_oai("Hello"):
        ...     pass
        >>> meta.finish_reason
        'stop'
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
    """One text with what is known about it.

    Args:
        text: the text.
        metadata: an empty `SingleOutputMeta` unless given.

    Example:
        >>> SingleOutput("Hello").metadata.finish_reason
        ''
    """

    def __init__(self, text: str, metadata: SingleOutputMeta | None = None) -> None:
        self.text = text
        self.metadata = SingleOutputMeta() if metadata is None else metadata


class StreamOutputs:
    """The outputs of one step of a stream.

    Args:
        outputs: one `SingleOutput` each.

    Example:
        >>> StreamOutputs([SingleOutput("Hello")]).outputs[0].text
        'Hello'
    """

    def __init__(self, outputs: list[SingleOutput]) -> None:
        self.outputs = outputs


class StreamItem(tuple):  # type: ignore[type-arg]
    """One item of a stream: a pair of text and meta that also behaves like its text.

    `for text, meta in stream` and `for line in stream: print(line + "!")` both work.

    Args:
        text: the text.
        meta: what is known about the answer so far.

    Example:
        >>> item = StreamItem("Hello", SingleOutputMeta())
        >>> item.text, item + "!"
        ('Hello', 'Hello!')
    """

    __slots__ = ()

    def __new__(cls, text: str, meta: SingleOutputMeta) -> "StreamItem":
        return super().__new__(cls, (text, meta))

    @property
    def text(self) -> str:
        """The text.

        Example:
            >>> StreamItem("Hello", SingleOutputMeta()).text
            'Hello'
        """
        return str(self[0])

    @property
    def meta(self) -> SingleOutputMeta:
        """What is known about the answer so far.

        Example:
            >>> StreamItem("Hello", SingleOutputMeta(finish_reason="stop")).meta.finish_reason
            'stop'
        """
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
