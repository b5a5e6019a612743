"""The vendors' own packages against the simulator: what it speaks is what their clients understand.

Each is asked for an answer, a stream, a tool call, vectors and one error, and what it read is held against the bill.
google-genai needs Python 3.11, spark-ai-python has no release for Python 3.13; they are skipped elsewhere.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

PATIENCE = 60
KEY = "0123456789abcdef.simulator"
SECRET = "simulator-secret"
APP = "simulator-app"
TAIL = " 你好，世界 🌍👩‍🚀"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
FUNCTION = {"name": "weather", "description": "of a city", "parameters": WEATHER}
CALL = [{"role": "user", "content": "please call weather"}]
HELLO = [{"role": "user", "content": "hello"}]


class Vendor:
    """A `byzerllm simulate` process."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "byzerllm", "simulate", name], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        line = self.process.stdout.readline()
        assert f"{name} is simulated on " in line, line
        self.url = line.split(" on ")[1].split(",")[0]
        self.host = self.url.split("://")[1].split("/")[0]
        self.origin = f"{self.url.split('://')[0]}://{self.host}"
        self.deploy = self.process.stdout.readline()

    def bill(self):
        """What the vendor wants to be paid for."""
        with urllib.request.urlopen(f"http://{self.host}/simulator/bill") as answer:
            return json.load(answer)

    def last(self):
        """The last line of the bill: prompt and completion tokens."""
        line = self.bill()[-1]
        return line["prompt"], line["completion"]

    def stop(self):
        """Ends the vendor and returns what it printed."""
        self.process.send_signal(signal.SIGINT)
        out = self.process.stdout.read()
        assert self.process.wait(PATIENCE) == 0
        return out


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Nothing stands between the packages and this machine."""
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def start():
    """Starts vendors, and ends them with the test."""
    vendors = []

    def begin(name):
        vendors.append(Vendor(name))
        return vendors[-1]

    yield begin
    for vendor in vendors:
        if vendor.process.poll() is None:
            vendor.process.kill()
        vendor.process.stdout.close()
        vendor.process.wait(PATIENCE)


def test_the_process_ends_with_its_bill(start):
    vendor = start("openai")
    assert vendor.deploy.startswith("byzerllm deploy --name m --type saas/openai --set saas.base_url=http://127.0.0.1:")
    assert vendor.stop().splitlines()[-1].startswith("total")


def test_openai(start):
    openai = pytest.importorskip("openai")
    vendor = start("openai")
    client = openai.OpenAI(api_key=KEY, base_url=vendor.url, max_retries=0)
    whole = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert whole.choices[0].message.content == "hello" + TAIL
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == vendor.last()
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello" + TAIL
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == vendor.last()
    tools = [{"type": "function", "function": FUNCTION}]
    called = client.chat.completions.create(model="gpt-4o", messages=CALL, tools=tools).choices[0]
    assert called.finish_reason == "tool_calls"
    assert json.loads(called.message.tool_calls[0].function.arguments) == {"city": "北京"}
    vectors = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(vectors.data[1].embedding) == 1536 and vectors.usage.prompt_tokens == vendor.last()[0]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert caught.value.code == "model_not_found" and caught.value.request_id.startswith("chatcmpl-")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="wrong", base_url=vendor.url).chat.completions.create(model="gpt-4o", messages=HELLO)


def test_openai_on_azure(start):
    openai = pytest.importorskip("openai")
    vendor = start("azure_openai")
    client = openai.AzureOpenAI(
        api_key=KEY, azure_endpoint=vendor.origin, api_version="2024-06-01", azure_deployment="gpt-4o", max_retries=0
    )
    whole = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert whole.choices[0].message.content == "hello" + TAIL
    chunks = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello" + TAIL


def test_zhipuai(start):
    zhipuai = pytest.importorskip("zhipuai")
    vendor = start("zhipu")
    # With the bare key, and with a token signed with its second half.
    for cached in [True, False]:
        client = zhipuai.ZhipuAI(api_key=KEY, base_url=vendor.url, max_retries=0, disable_token_cache=cached)
        whole = client.chat.completions.create(model="glm-4", messages=list(HELLO))
        assert whole.choices[0].message.content == "hello" + TAIL
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == vendor.last()
    chunks = list(client.chat.completions.create(model="glm-4", messages=list(HELLO), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello" + TAIL
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == vendor.last()
    tools = [{"type": "function", "function": FUNCTION}]
    for stream in [False, True]:
        answer = client.chat.completions.create(model="glm-4", messages=list(CALL), tools=tools, stream=stream)
        if stream:
            call = [c for chunk in answer for c in chunk.choices[0].delta.tool_calls or []][0]
        else:
            call = answer.choices[0].message.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "北京"})
    vectors = client.embeddings.create(model="embedding-2", input="a")
    assert len(vectors.data[0].embedding) == 1024 and vectors.usage.prompt_tokens == vendor.last()[0]
    with pytest.raises(zhipuai.core._errors.APIRequestFailedError, match="1211"):
        client.chat.completions.create(model="nobody", messages=list(HELLO))
    wrong = zhipuai.ZhipuAI(api_key="0123456789abcdef.x", base_url=vendor.url, max_retries=0, disable_token_cache=False)
    with pytest.raises(zhipuai.core._errors.APIAuthenticationError, match="1002"):
        wrong.chat.completions.create(model="glm-4", messages=list(HELLO))


def test_dashscope(start, monkeypatch):
    dashscope = pytest.importorskip("dashscope")
    vendor = start("qianwen")
    monkeypatch.setattr(dashscope, "base_http_api_url", vendor.url)
    ask = {"model": "qwen-plus", "messages": HELLO, "api_key": KEY, "result_format": "message"}
    whole = dashscope.Generation.call(**ask)
    assert whole.status_code == 200, whole
    assert whole.output.choices[0].message.content == "hello" + TAIL
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == vendor.last()
    assert whole.request_id == vendor.bill()[-1]["request_id"]
    pieces = [e.output.choices[0].message.content for e in dashscope.Generation.call(**ask, stream=True)]
    assert pieces[-1] == "hello" + TAIL and all(pieces[-1].startswith(piece) for piece in pieces)
    events = list(dashscope.Generation.call(**ask, stream=True, incremental_output=True))
    assert "".join(event.output.choices[0].message.content for event in events) == "hello" + TAIL
    assert (events[-1].usage.input_tokens, events[-1].usage.output_tokens) == vendor.last()
    called = dashscope.Generation.call(
        **{**ask, "messages": CALL}, tools=[{"type": "function", "function": FUNCTION}]
    ).output.choices[0]
    assert called.finish_reason == "tool_calls"
    assert json.loads(called.message.tool_calls[0]["function"]["arguments"]) == {"city": "北京"}
    vectors = dashscope.TextEmbedding.call(model="text-embedding-v2", input=["a", "b"], api_key=KEY)
    assert len(vectors.output["embeddings"][1]["embedding"]) == 1536
    assert vectors.usage["total_tokens"] == vendor.last()[0]
    for change, status, code in [
        ({"api_key": "wrong"}, 401, "InvalidApiKey"),
        ({"model": "nobody"}, 404, "ModelNotFound"),
        ({"temperature": 2.5}, 400, "InvalidParameter"),
    ]:
        refused = dashscope.Generation.call(**{**ask, **change})
        assert (refused.status_code, refused.code) == (status, code), refused


def test_dashscope_with_pictures(start, monkeypatch):
    dashscope = pytest.importorskip("dashscope")
    vendor = start("qianwen_vl")
    monkeypatch.setattr(dashscope, "base_http_api_url", vendor.url)
    content = [{"image": "https://example.invalid/a.png"}, {"text": "what is this"}]
    messages = [{"role": "user", "content": content}]
    answer = dashscope.MultiModalConversation.call(model="qwen-vl-plus", messages=messages, api_key=KEY)
    assert answer.status_code == 200, answer
    assert answer.output.choices[0].message.content[0]["text"] == "what is this [images: 1]" + TAIL


def test_qianfan(start, monkeypatch, tmp_path):
    pytest.importorskip("qianfan")
    vendor = start("qianfan")
    monkeypatch.chdir(tmp_path)
    done = in_a_process(
        tmp_path,
        {
            "QIANFAN_BASE_URL": vendor.origin,
            "QIANFAN_CONSOLE_API_BASE_URL": vendor.origin,
            "QIANFAN_AK": KEY,
            "QIANFAN_SK": SECRET,
            "QIANFAN_CACHE_DIR": str(tmp_path),
            "QIANFAN_LLM_API_RETRY_COUNT": "1",
        },
        """
import json, qianfan
from qianfan import errors

hello = [{"role": "user", "content": "hello"}]
chat = qianfan.ChatCompletion(endpoint="completions")
whole = chat.do(messages=hello)
pieces = list(chat.do(messages=hello, stream=True))
weather = json.loads(%r)
called = chat.do(messages=[{"role": "user", "content": "please call weather"}], functions=[weather])
vectors = qianfan.Embedding(endpoint="embedding-v1").do(texts=["a", "b"])
try:
    chat.do(messages=hello, temperature=5.0)
    error = None
except errors.APIError as caught:
    error = caught.error_code
print(json.dumps({
    "whole": whole["result"],
    "usage": [whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]],
    "stream": "".join(piece["result"] for piece in pieces),
    "ended": pieces[-1]["is_end"],
    "call": called["function_call"],
    "vector": len(vectors["data"][1]["embedding"]),
    "error": error,
}))
"""
        % json.dumps(FUNCTION),
    )
    assert done["whole"] == done["stream"] == "hello" + TAIL and done["ended"]
    bill = vendor.bill()
    assert done["usage"] == [bill[0]["prompt"], bill[0]["completion"]]
    assert (done["call"]["name"], json.loads(done["call"]["arguments"])) == ("weather", {"city": "北京"})
    assert (done["vector"], done["error"], len(bill)) == (384, 336003, 4)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="spark-ai-python has no release for this Python")
def test_sparkai(start, tmp_path):
    pytest.importorskip("sparkai")
    vendor = start("sparkdesk")
    done = in_a_process(
        tmp_path,
        {"SPARK_URL": f"{vendor.origin}/v3.5/chat"},
        """
import json, os
from sparkai.core.messages import ChatMessage
from sparkai.llm.llm import ChatSparkLLM

def model(streaming, secret=%r):
    return ChatSparkLLM(
        spark_api_url=os.environ["SPARK_URL"], spark_app_id=%r, spark_api_key=%r, spark_api_secret=secret,
        spark_llm_domain="generalv3.5", streaming=streaming, request_timeout=20,
    )

hello = [ChatMessage(role="user", content="hello")]
whole = model(False).generate([hello])
pieces = [chunk.content for chunk in model(True).stream(hello)]
called = model(False).generate(
    [[ChatMessage(role="user", content="please call weather")]], function_definition=[json.loads(%r)]
)
try:
    model(False, "wrong").generate([hello])
    error = None
except Exception as caught:
    error = str(caught)
print(json.dumps({
    "whole": whole.generations[0][0].text,
    "usage": whole.llm_output["token_usage"],
    "stream": pieces,
    "call": called.generations[0][0].message.function_call,
    "error": error,
}))
"""
        % (SECRET, APP, KEY, json.dumps(FUNCTION)),
    )
    bill = vendor.bill()
    assert done["whole"] == "hello" + TAIL
    usage = done["usage"].get("token_usage", done["usage"])
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (bill[0]["prompt"], bill[0]["completion"])
    # The package sends the last piece of a stream once more, empty.
    assert "".join(done["stream"]) == "hello" + TAIL and len(done["stream"]) > 3
    assert (done["call"]["name"], json.loads(done["call"]["arguments"])) == ("weather", {"city": "北京"})
    assert "401" in done["error"] and len(bill) == 3


def test_anthropic(start):
    anthropic = pytest.importorskip("anthropic")
    vendor = start("claude")
    client = anthropic.Anthropic(api_key=KEY, base_url=vendor.url, max_retries=0)
    ask = {"model": "claude-3-5-haiku-20241022", "max_tokens": 1000, "messages": HELLO}
    whole = client.messages.create(**ask)
    assert whole.content[0].text == "hello" + TAIL and whole.stop_reason == "end_turn"
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == vendor.last()
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == "hello" + TAIL
        final = stream.get_final_message()
    assert (final.usage.input_tokens, final.usage.output_tokens) == vendor.last()
    tools = [{"name": "weather", "input_schema": WEATHER}]
    with client.messages.stream(**{**ask, "messages": CALL}, tools=tools) as stream:
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use" and called.content[-1].input == {"city": "北京"}
    thought = client.messages.create(
        **{**ask, "max_tokens": 4000}, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert thought.content[0].type == "thinking" and "hello" in thought.content[0].thinking
    counted = client.messages.count_tokens(model=ask["model"], messages=HELLO)
    assert counted.input_tokens == whole.usage.input_tokens
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{**ask, "messages": [{"role": "assistant", "content": "hi"}]})
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(api_key="wrong", base_url=vendor.url).messages.create(**ask)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="google-genai needs Python 3.11")
def test_google_genai(start):
    genai = pytest.importorskip("google.genai")
    errors = pytest.importorskip("google.genai.errors")
    types = pytest.importorskip("google.genai.types")
    vendor = start("gemini")
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=vendor.origin))
    model = "gemini-2.5-flash"
    whole = client.models.generate_content(model=model, contents="hello")
    assert whole.text == "hello" + TAIL
    usage = whole.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count) == vendor.last()
    chunks = list(client.models.generate_content_stream(model=model, contents="hello"))
    assert "".join(chunk.text or "" for chunk in chunks) == "hello" + TAIL and len(chunks) > 3
    assert chunks[-1].usage_metadata.total_token_count == sum(vendor.last())
    declaration = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declaration])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    called = client.models.generate_content(model=model, contents="please call weather", config=config)
    assert called.function_calls[0].args == {"city": "北京"}
    vectors = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert len(vectors.embeddings) == 2 and len(vectors.embeddings[1].values) == 3072
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="gemma-x", contents="hello")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    wrong = genai.Client(api_key="wrong", http_options=types.HttpOptions(base_url=vendor.origin))
    with pytest.raises(errors.ClientError, match="API key not valid"):
        wrong.models.generate_content(model=model, contents="hello")


def in_a_process(directory, variables, program):
    """Runs a program in an interpreter of its own and returns the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=directory,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
