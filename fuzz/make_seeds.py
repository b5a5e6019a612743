"""Writes the first files of the corpora: small whole files of every format, from which the fuzzer starts.

    python3 fuzz/make_seeds.py

Standard library only. The files are named `seed-…`; what the fuzzer finds later lies beside them.
"""

import base64
import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Dict, List, Tuple

FUZZ = Path(__file__).resolve().parent
FIXTURES = FUZZ.parent / "crates" / "model" / "tests" / "fixtures"


def write(target: str, name: str, data: bytes) -> None:
    """One seed."""
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


# ---- GGUF ----


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def word(key: str, value: str) -> bytes:
    return pair(key, 8, text(value))


def number(key: str, value: int) -> bytes:
    return pair(key, 4, struct.pack("<I", value))


def real(key: str, value: float) -> bytes:
    return pair(key, 6, struct.pack("<f", value))


def array(key: str, kind: int, values: List[bytes]) -> bytes:
    return pair(key, 9, struct.pack("<IQ", kind, len(values)) + b"".join(values))


def gguf(pairs: List[bytes], tensors: List[Tuple[str, List[int], int, int]], version: int = 3) -> bytes:
    """A file; tensors are (name, dimensions innermost first, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    offset = 0
    for name, dimensions, kind, size in tensors:
        head += text(name) + struct.pack("<I", len(dimensions))
        head += b"".join(struct.pack("<Q", dimension) for dimension in dimensions)
        head += struct.pack("<IQ", kind, offset)
        offset += -(-size // 32) * 32
    head += bytes(-len(head) % 32)
    # Halves of a small number: any bits are a value, these are tame ones.
    return head + b"\x00\x2c" * (offset // 2)


TOKENS = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581a", "c", "1", "\u2581ab", "H"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
F16, Q4_0, Q8_0 = 1, 2, 8


def vocabulary(model: str, pre: str = "") -> List[bytes]:
    pairs = [word("tokenizer.ggml.model", model)]
    if pre:
        pairs.append(word("tokenizer.ggml.pre", pre))
    tokens = TOKENS if model != "gpt2" else ["<|a|>", "<|b|>", "H", "e", "l", "o", "\u0120", "He", "ll", "1", "2", "\u010a"]
    pairs.append(array("tokenizer.ggml.tokens", 8, [text(token) for token in tokens]))
    kinds = [2, 3, 3] + [1] * 9 if model != "gpt2" else [3, 3] + [1] * 10
    pairs.append(array("tokenizer.ggml.token_type", 5, [struct.pack("<i", kind) for kind in kinds]))
    if model == "gpt2":
        pairs.append(array("tokenizer.ggml.merges", 8, [text("H e"), text("l l")]))
    else:
        pairs.append(array("tokenizer.ggml.scores", 6, [struct.pack("<f", -index) for index in range(len(tokens))]))
    pairs += [number("tokenizer.ggml.bos_token_id", 1), number("tokenizer.ggml.eos_token_id", 2 if model != "gpt2" else 0)]
    pairs.append(pair("tokenizer.ggml.add_bos_token", 7, b"\x01"))
    pairs.append(word("tokenizer.chat_template", "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"))
    return pairs


def network(family: str, kind: int) -> bytes:
    """A whole model of one layer."""
    width, count = (16, len(TOKENS)) if kind == F16 else (32, len(TOKENS))
    row = {F16: 2 * width, Q4_0: width // 32 * 18, Q8_0: width // 32 * 34}[kind]
    prefix = family
    pairs = [word("general.architecture", family), number(f"{prefix}.block_count", 1)]
    pairs += [number(f"{prefix}.embedding_length", width), number(f"{prefix}.context_length", 64)]
    pairs += [number(f"{prefix}.feed_forward_length", width), number(f"{prefix}.attention.head_count", 2)]
    pairs += [number(f"{prefix}.attention.head_count_kv", 1), real(f"{prefix}.attention.layer_norm_rms_epsilon", 1e-5)]
    pairs += [real(f"{prefix}.rope.freq_base", 10000.0)]
    pairs += vocabulary("gpt2", "qwen2") if family == "qwen2" else vocabulary("llama")
    norm = lambda name: (name, [width], 0, 4 * width)
    matrix = lambda name, rows: (name, [width, rows], kind, rows * row)
    half = width // 2
    tensors = [matrix("token_embd.weight", count), norm("output_norm.weight")]
    tensors += [norm("blk.0.attn_norm.weight"), norm("blk.0.ffn_norm.weight")]
    tensors += [matrix("blk.0.attn_q.weight", width), matrix("blk.0.attn_k.weight", half)]
    tensors += [matrix("blk.0.attn_v.weight", half), matrix("blk.0.attn_output.weight", width)]
    if family == "qwen2":
        tensors += [(f"blk.0.attn_{part}.bias", [size], 0, 4 * size) for part, size in [("q", width), ("k", half), ("v", half)]]
    tensors += [matrix(f"blk.0.ffn_{part}.weight", width) for part in ["gate", "up", "down"]]
    return gguf(pairs, tensors)


def make_gguf() -> None:
    write("gguf", "llama-f16", network("llama", F16))
    write("gguf", "llama-q4_0", network("llama", Q4_0))
    write("gguf", "qwen2-q8_0", network("qwen2", Q8_0))
    every = [pair(f"k{kind}", kind, bytes(size)) for kind, size in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (7, 1), (10, 8), (11, 8), (12, 8)]]
    nested = pair("nested", 9, struct.pack("<IQIQ", 9, 1, 8, 1) + text("x"))
    languages = array("general.languages", 8, [text("en"), text("zh")])
    write("gguf", "values", gguf([word("general.architecture", "llama"), number("general.alignment", 64), nested, languages, *every], []))
    write("gguf", "version-2", gguf([word("general.architecture", "mamba")], [("t", [32, 2], 2, 36)], version=2))
    for model in ["llama", "t5", "gpt2"]:
        write("gguf", f"vocabulary-{model}", gguf([word("general.architecture", "llama"), *vocabulary(model, "llama-bpe" if model == "gpt2" else "")], []))


# ---- safetensors ----


def safetensors(header: Dict[str, object], data: bytes) -> bytes:
    words = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(words)) + words + data


def make_safetensors() -> None:
    tensor = lambda dtype, shape, begin, end: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    two = {"__metadata__": {"format": "pt"}, "a": tensor("F32", [2, 2], 0, 16), "b.weight": tensor("BF16", [3], 16, 22)}
    write("safetensors", "two", safetensors(two, bytes(22)))
    kinds = ["F64", "I64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F16"]
    sizes = [8, 8, 4, 4, 2, 2, 1, 1, 1, 1, 1, 2]
    header, at = {}, 0
    for kind, size in zip(kinds, sizes):
        header[kind.lower()] = tensor(kind, [1], at, at + size)
        at += size
    write("safetensors", "types", safetensors(header, bytes(at)))
    write("safetensors", "empty", safetensors({"none": tensor("F32", [0, 4], 0, 0), "scalar": tensor("F32", [], 0, 4)}, bytes(4)))
    write("safetensors", "nothing", safetensors({}, b""))


# ---- torch ----


def stand_ins() -> Dict[str, type]:
    """Names of torch that a pickle mentions; they are never called."""
    torch, utilities = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules.update({"torch": torch, "torch._utils": utilities})
    names = {}
    for module, name in [(torch, "FloatStorage"), (torch, "BFloat16Storage"), (torch, "HalfStorage"), (torch, "LongStorage"),
                         (utilities, "_rebuild_tensor_v2"), (utilities, "_rebuild_parameter")]:
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = module.__name__, name
        setattr(module, name, function)
        names[name] = function
    return names


class Tensor:
    """A view of a storage, pickled as torch pickles it."""

    names: Dict[str, type] = {}

    def __init__(self, kind: str, key: str, shape: Tuple[int, ...], parameter: bool = False) -> None:
        self.kind, self.key, self.shape, self.parameter = kind, key, shape, parameter

    def __reduce__(self):  # noqa: D105
        count, strides = 1, []
        for dimension in reversed(self.shape):
            strides.insert(0, count)
            count *= dimension
        if self.parameter:
            return self.names["_rebuild_parameter"], (Tensor(self.kind, self.key, self.shape), True, collections.OrderedDict())
        storage = Storage(self.kind, self.key, count)
        return self.names["_rebuild_tensor_v2"], (storage, 0, self.shape, tuple(strides), False, collections.OrderedDict())


class Storage:
    """A persistent id."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.id = ("storage", Tensor.names[kind], key, "cpu", count)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):  # noqa: D102
        return value.id if isinstance(value, Storage) else None


def pickled(value: object, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


def archive(files: Dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def make_torch() -> None:
    Tensor.names = stand_ins()
    weights = collections.OrderedDict(a=Tensor("FloatStorage", "0", (2, 2)), b=Tensor("BFloat16Storage", "1", (3,), True))
    for protocol in [2, 4]:
        write("pickle", f"weights-{protocol}", pickled(weights, protocol))
    write("pickle", "state-dict", pickled({"state_dict": weights, "epoch": 3, "loss": 0.5, "big": 1 << 40, "list": [1, None, True]}))
    write("pickle", "refused", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    data = {"model/data.pkl": pickled(weights), "model/byteorder": b"little", "model/data/0": bytes(16), "model/data/1": bytes(6)}
    write("torch_bin", "weights", archive(data))
    counts = {"archive/data.pkl": pickled({"n": Tensor("LongStorage", "7", ()), "h": Tensor("HalfStorage", "8", (0, 2))})}
    write("torch_bin", "counts", archive({**counts, "archive/data/7": bytes(8), "archive/data/8": b""}))


# ---- tokenizers ----


def make_tokenizers() -> None:
    text = "Hello <s> ab 12 \u00e9".encode()
    head = lambda kind: bytes([kind, len(text)]) + text
    base = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    special = [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for index, token in enumerate(TOKENS[:3])]
    ids = {token: index for index, token in enumerate(TOKENS + BYTES[10:14])}
    bpe = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": ids, "merges": [["a", "b"], ["\u2581", "a"], ["\u2581", "ab"]]}
    replaced = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    normal = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    around = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    files = {
        "fallback": {**base, "added_tokens": special, "normalizer": normal, "pre_tokenizer": None, "post_processor": around, "decoder": replaced, "model": bpe},
        "byte-level": {**base, "added_tokens": special, "normalizer": {"type": "NFC"}, "pre_tokenizer": level, "decoder": level, "model": {**bpe, "byte_fallback": False, "unk_token": None}},
        "metaspace": {**base, "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, "model": {"type": "Unigram", "unk_id": 0, "vocab": [[token, -float(index)] for index, token in enumerate(TOKENS)], "byte_fallback": True}},
        "word-piece": {**base, "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False}, "model": {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids}},
        "no-decoder": {**base, "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "decoder": None, "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"}},
    }
    for name, file in files.items():
        write("tokenizer", f"json-{name}", head(0) + json.dumps(file, separators=(",", ":"), ensure_ascii=False).encode())

    def field(number: int, wire: int, data: bytes) -> bytes:
        return bytes([number << 3 | wire]) + (bytes([len(data)]) if wire == 2 else b"") + data

    def sentencepiece(model: int, extra: bytes = b"", tokens: List[str] = TOKENS) -> bytes:
        out = b""
        for index, token in enumerate(tokens):
            kind = {0: 2, 1: 3, 2: 3}.get(index, 6 if token.startswith("<0x") else 1)
            piece = field(1, 2, token.encode()) + field(2, 5, struct.pack("<f", -index)) + field(3, 0, bytes([kind]))
            out += field(1, 2, piece)
        return out + field(2, 2, field(3, 0, bytes([model]))) + extra

    write("tokenizer", "sentencepiece-unigram", head(1) + sentencepiece(1))
    write("tokenizer", "sentencepiece-bpe", head(1) + sentencepiece(2, field(3, 2, field(3, 0, b"\x01") + field(4, 0, b"\x00"))))
    write("tokenizer", "sentencepiece-bytes", head(1) + sentencepiece(2, tokens=TOKENS + BYTES))
    ranks = [bytes([byte]) for byte in range(256)] + [b"He", b"ll", b"Hell", b" a"]
    lines = b"".join(base64.b64encode(token) + b" %d\n" % index for index, token in enumerate(ranks))
    write("tokenizer", "tiktoken-llama", head(2) + lines)
    write("tokenizer", "tiktoken-qwen", head(3) + b"".join(base64.b64encode(token) + b" %d\n" % index for index, token in enumerate([b"H", b"e", b"l", b"o", b" ", b"He", b"ll"])))
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable] + [chr(0x100 + place) for place in range(256 - len(printable))]
    words = letters + ["He", "ll", "\u0120a"]
    vocabulary_file = json.dumps({token: index for index, token in enumerate(words)}, separators=(",", ":"), ensure_ascii=False).encode()
    write("tokenizer", "vocab-merges", head(4) + vocabulary_file + b"\0#version: 0.2\nH e\nl l\n\xc4\xa0 a\n")


# ---- templates ----

TEMPLATES = {
    "chatml": (0, "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
    "llama2": (1, "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
    "tools": (2, "{%- macro show(x, depth=0) -%}{%- for k, v in x.items() -%}{{ k ~ ':' ~ (v | tojson) }}{%- endfor -%}{%- endmacro -%}{% set ns = namespace(last=none, seen=[]) %}{%- if tools is not none and tools | length > 0 %}<tools>{% for tool in tools %}{{ tool | tojson(indent=2) }}{{ show(tool.function) }}{% endfor %}</tools>{% endif %}{%- for m in messages | reverse %}{%- if m.role == 'tool' %}{% set ns.last = m.content %}{% elif m.tool_calls is defined %}{%- for c in m.tool_calls %}<tool_call>{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</tool_call>{% endfor %}{% endif %}{% endfor %}{{ ns.last | default('', true) | upper }}"),
    "think": (1, "{%- for m in messages %}{%- set content = m.content %}{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{ m.role | capitalize }}: {{ content | trim | replace('a', 'b') }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}{% generation %}x{% endgeneration %}"),
    "filters": (3, "{{ [3,1,2]|sort|join(',') }}{{ 'abc'[::-1] }}{{ 'a-b'.split('-')|list }}{{ {'a':1}|items|list }}{{ range(3)|map('string')|list }}{{ 'x' * 3 }}{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 8 }}{{ 1 if true else 0 }}{{ 'a' ~ 1 }}{{ [1,2,3]|selectattr('x','undefined')|list|length }}{{ '%s' | format('y') }}{{ messages|length }}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ loop.cycle('o','e') }}{% endfor %}{{ strftime_now('%Y') }}"),
    "scopes": (0, "{% set x %}abc{% endset %}{% filter upper %}{{ x }}{% endfilter %}{% with a=1, b=2 %}{{ a + b }}{% endwith %}{% block t %}{{ self.t is defined }}{% endblock %}{% raw %}{{ no }}{% endraw %}{# comment #}{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{% call(u) f(1) %}{{ u }}{% endcall %}{{ dict(a=1) }}{{ lipsum is defined }}{{ cycler is defined }}{{ none is none }}{{ 1 is odd }}{{ 'a' in 'abc' }}{{ x is string and not x is mapping }}"),
}


def make_templates() -> None:
    for name, (kind, source) in TEMPLATES.items():
        write("template", name, bytes([kind]) + source.encode())
    known = json.loads((FIXTURES / "tokenizer" / "templates.json").read_text(encoding="utf-8"))["templates"]
    for entry in known:
        write("template", f"known-{entry['name']}", bytes([2]) + entry["source"].encode())


# ---- answers ----


def make_answers() -> None:
    hermes = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>{"arguments": {"a": [1, {}]}, "name": "add"}</tool_call>\n'
    llama = '<|python_tag|>{"type": "function", "name": "add", "parameters": {"a": 1.5e3}}; {"name": "weather", "arguments": "{\\"a\\": null}"}'
    mistral = 'Wait. [TOOL_CALLS] [{"name": "add", "arguments": {"a": true}, "id": "x"}, {"name": "weather", "arguments": {"\\u00fc": "\\ud83d\\ude00"}}] '
    thoughts = "<think>\nWell, a <b>.\n</think>\n\nYes."
    for index, (name, answer) in enumerate([("hermes", hermes), ("llama", llama), ("mistral", mistral), ("thoughts", thoughts)]):
        write("tool_calls", name, bytes([index, 0, 1]) + answer.encode())
        if index < 3:
            write("tool_calls", f"{name}-thoughts", bytes([index + 4, 0, 2]) + thoughts.encode() + answer.encode())
    write("tool_calls", "begun", bytes([4, 1, 3]) + ("so\n</think>" + hermes).encode())
    write("tool_calls", "cut", bytes([0, 2, 4]) + hermes[:70].encode())
    write("tool_calls", "bare", bytes([1, 0, 5]) + b'{"name": "rm", "parameters": {}}')
    write("tool_calls", "broken", bytes([0, 0, 6]) + b'<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call> \xe6\x97\xa5')


# ---- requests ----


def make_requests() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}, "required": ["city"]}, "strict": False}}
    user = {"role": "user", "content": "Hi"}
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]}
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": -1, "stop": ["a", "b"], "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"5": -100}, "max_tokens": 16, "user": "u"}
    more = {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "stop_token_ids": [1], "ignore_eos": True, "min_tokens": 2, "n": 2, "best_of": 3}
    bodies = {
        "chat": (0, {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, user], **sampling, "stream": True, "stream_options": {"include_usage": True}}),
        "chat-tools": (0, {"model": "m", "messages": [user, call, answer], "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": True}),
        "chat-more": (0, {"model": "m", "messages": [user], **more, "logprobs": True, "top_logprobs": 3, "metadata": {"a": "b"}, "modalities": ["text"], "max_completion_tokens": 5}),
        "chat-schema": (0, {"model": "m", "messages": [user], "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "number", "maximum": 1.5}}}, "strict": True}}}),
        "chat-guided": (0, {"model": "m", "messages": [user], "guided_regex": "[a-z]+", "response_format": {"type": "text"}}),
        "chat-choice": (0, {"model": "m", "messages": [user], "guided_choice": ["yes", "no"]}),
        "completion": (1, {"model": "m", "prompt": ["a", "b"], **sampling, "echo": True, "logprobs": 2}),
        "completion-ids": (1, {"model": "m", "prompt": [[1, 2], [3]], "n": 2, "guided_json": {"type": "integer"}}),
        "tokenize": (2, {"model": "m", "prompt": "Hi"}),
        "tokenize-chat": (2, {"model": "m", "messages": [user], "add_generation_prompt": False}),
        "detokenize": (3, {"model": "m", "tokens": [1, 2, 4294967295]}),
        "native": (4, {"model": "m", "input": {"kind": "messages", "value": [{"role": "user", "content": "Hi"}]}, "sampling": {"temperature": 0.5, "stop": ["x"], "logit_bias": {"3": 1.5}}, "format": {"kind": "regex", "value": "a+"}, "front_end": "legacy"}),
        "native-tools": (4, {"model": "m", "input": {"kind": "tokens", "value": [1]}, "tools": [{"name": "f", "description": None, "parameters": {"type": "object"}}], "tool_choice": {"named": "f"}, "n": 2}),
        "deployment": (5, {"name": "chat", "model": "/models/a.gguf", "compute": "fast", "defaults": {"top_p": 0.5}, "limits": {"max_sequences": 4}, "labels": {"a": 1}}),
        "template": (6, {"model": "m", "messages": [user], "add_generation_prompt": False}),
        "key": (7, {"name": "k", "scopes": ["infer:*", "admin"], "expires_seconds": 60}),
        "rotate": (8, {"grace_seconds": 5}),
        "inspect": (8, {"path": "/models/a"}),
        "chat-extra": (0, {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]}], "enable_search": {"a": [1, None]}, "reasoning_effort": "high"}),
        "embedding": (9, {"model": "m", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "u"}),
        "embedding-ids": (9, {"model": "m", "input": [[1, 2], [3]], "encoding_format": "float"}),
        "messages": (10, {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "42"}]}]}], "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}, "stop_sequences": ["x"], "thinking": {"type": "enabled"}, "stream": True}),
        "count": (11, {"model": "m", "messages": [user, {"role": "assistant", "content": "The"}], "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
        "responses": (12, {"model": "m", "input": [user, {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]}, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "42"}], "instructions": "i", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}], "tool_choice": {"type": "function", "name": "f"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}, "reasoning": {"effort": "high"}, "metadata": {"a": "b"}, "include": ["reasoning.encrypted_content"], "store": False, "stream": True, "stream_options": {}}),
        "responses-text": (12, {"model": "m", "input": "Hi", "max_output_tokens": 5}),
        "rerank": (13, {"model": "m", "query": {"text": "q"}, "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": False, "scale": "probability", "use_activation": True, "truncate": True, "truncate_prompt_tokens": -1, "user": "u"}),
        "score": (14, {"model": "m", "text_1": "q", "text_2": ["a", "b"], "truncate_prompt_tokens": 8}),
    }
    for name, (route, body) in bodies.items():
        write("request", name, bytes([route]) + json.dumps(body, separators=(",", ":")).encode())


# ---- vendors' answers ----

VENDORS = FUZZ.parent / "crates" / "providers" / "tests" / "fixtures"
# The places of `DEPLOYMENTS` in `crates/providers/src/fuzzing.rs`, by the folder of their fixtures.
PLACES = {
    "openai": [0], "azure_openai": [1], "baichuan": [2], "deepseek": [3], "moonshot": [4], "siliconflow": [5], "volcengine": [6],
    "zhipu": [7], "claude": [8], "gemini": [9], "minimax": [10, 11], "qianfan": [12, 13], "qianwen": [14], "qianwen_vl": [15],
    "sparkdesk": [16],
}


def make_vendor_answers() -> None:
    """The documented answers of every vendor, as its translation reads them."""
    for vendor, places in PLACES.items():
        for file in sorted((VENDORS / vendor).glob("*.json")):
            fixture = json.loads(file.read_text(encoding="utf-8"))
            cases = list(fixture.get("answers", []))
            if "frames" in fixture:
                cases.append({"frames": fixture["frames"], "request": {"whole": bool(fixture.get("whole"))}})
            for number, case in enumerate(cases):
                second = "v2" in json.dumps(case.get("parameters", {})) or "bce" in json.dumps(case.get("parameters", {}))
                place = places[-1] if second else places[0]
                asked = case.get("request", {})
                how = int(bool(asked.get("whole"))) | (4 if asked.get("n") == 2 else 0)
                if "incremental_output" in json.dumps(asked):
                    how |= 2
                body = vendor_body(vendor, case["frames"], bool(how & 1))
                write("vendor_answer", f"{vendor}-{file.stem}-{number}", bytes([place, how, number]) + body)
            errors = fixture.get("errors", [])
            for number, case in enumerate(errors[:: max(1, len(errors) // 4)]):
                body = plain(case["body"]).encode()
                write("vendor_answer", f"{vendor}-{file.stem}-error-{number}", bytes([places[0], 8, number]) + body)
            for number, case in enumerate(fixture.get("embeddings", [])):
                body = plain(case["answer"]).encode()
                write("vendor_answer", f"{vendor}-{file.stem}-vectors-{number}", bytes([places[0], 16, 0]) + body)


def make_vendor_http() -> None:
    """Answers as they come off the wire."""
    events = b'data: {"choices": []}\r\n\r\ndata: [DONE]\r\n\r\n'
    body = b'{"choices": []}'
    sized = b"Content-Length: %d\r\n" % len(body)
    chunked = b"Transfer-Encoding: chunked\r\n"
    chunks = b"%x\r\n%b\r\n%X;name=value\r\n%b\r\n" % (7, events[:7], len(events) - 7, events[7:])
    heads = {
        "sized": (b"200 OK", b"Content-Type: application/json\r\n" + sized, body),
        "more-than-announced": (b"200 OK", sized, body + b"HTTP/1.1 200 OK\r\n"),
        "less-than-announced": (b"500 Internal Server Error", sized, body[:4]),
        "chunked": (b"200 OK", b"Content-Type: text/event-stream\r\n" + chunked, chunks + b"0\r\n\r\n"),
        "trailers": (b"200 OK", chunked, chunks + b"00\r\nServer-Timing: x\r\nA: 1\r\n\r\n"),
        "broken-chunks": (b"200 OK", chunked, chunks + b"g\r\n"),
        "until-close": (b"200 OK", b"Connection: close\r\n", events),
        "nothing": (b"204 No Content", b"", b""),
        "lengths": (b"429 Too Many Requests", b"Content-Length: 2, 2\r\nRetry-After: 1\r\n", b"{}"),
        "two-lengths": (b"200 OK", b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{} "),
        "both": (b"200 OK", chunked + sized, chunks),
    }
    for place, (name, (status, fields, rest)) in enumerate(heads.items()):
        write("vendor_http", name, bytes([place]) + b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + rest)
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    write("vendor_http", "early", b"\x20" + early + b"HTTP/1.0 200 OK\nConnection: keep-alive\n" + sized + b"\n" + body)


def plain(value: object) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def vendor_body(vendor: str, frames: List[object], whole: bool) -> bytes:
    """Frames as they travel: one body, lines for messages of a WebSocket, or events."""
    if whole or vendor == "sparkdesk":
        return "\n".join(plain(frame) for frame in frames).encode()
    out = ""
    for frame in frames:
        named = isinstance(frame, dict) and "event" in frame and "data" in frame
        data = frame["data"] if named else frame
        if named and frame["event"]:
            out += f"event: {frame['event']}\n"
        if named and frame.get("id"):
            out += f"id: {frame['id']}\n"
        out += f"data: {plain(data)}\n\n"
    return out.encode()


if __name__ == "__main__":
    make_answers()
    make_vendor_answers()
    make_vendor_http()
    make_requests()
    make_gguf()
    make_safetensors()
    make_torch()
    make_tokenizers()
    make_templates()
