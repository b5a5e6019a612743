"""The server's OpenAPI document: valid as such, and true of real answers."""

import json
import urllib.error
import urllib.request

import jsonschema
import pytest
from conftest import REPOSITORY
from openapi_spec_validator import OpenAPIV31SpecValidator

from byzerllm.utils.client import ByzerLLM

HELLO = [{"role": "user", "content": "hello"}]


def call(server, path, body=None):
    """Status, content type and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read().decode()


@pytest.fixture
def server(start_server, checkpoint):
    started = start_server()
    ByzerLLM().deploy(checkpoint, udf_name="chat")
    return started


def test_the_document_is_valid_and_the_committed_one(start_server):
    status, kind, text = call(start_server(), "/openapi.json")
    assert (status, kind) == (200, "application/json")
    document = json.loads(text)
    OpenAPIV31SpecValidator(document).validate()
    assert document == json.loads((REPOSITORY / "docs" / "reference" / "openapi.json").read_text())
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "chat", "messages": HELLO, "max_tokens": 4, "logprobs": True}),
        ("/v1/chat/completions", {"model": "chat", "messages": HELLO, "max_tokens": 4, "stream": True}),
        ("/v1/completions", {"model": "chat", "prompt": ["a", "b"], "max_tokens": 4, "logprobs": 2, "n": 2}),
        ("/v1/completions", {"model": "chat", "prompt": "a", "max_tokens": 4, "stream": True, "logprobs": 1}),
        ("/v1/chat/completions", {"model": "chat", "messages": HELLO, "temprature": 1}),
        ("/v1/chat/completions", {"model": "none", "messages": HELLO}),
        ("/tokenize", {"model": "chat", "messages": HELLO}),
        ("/detokenize", {"model": "chat", "tokens": [5, 6]}),
        ("/v1/models", None),
        ("/readyz", None),
        ("/version", None),
    ],
)
def test_answers_of_a_real_model_are_as_described(server, path, body):
    document = json.loads(call(server, "/openapi.json")[2])
    operation = document["paths"][path]["get" if body is None else "post"]
    status, kind, text = call(server, path, body)
    response = operation["responses"][str(status)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    schema = {**response["content"][kind]["schema"], "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    if kind == "text/event-stream":
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert lines.pop() == "[DONE]" and len(lines) > 1
    else:
        lines = [text]
    for line in lines:
        validator.validate(json.loads(line))


def test_the_examples_are_answered(server):
    document = json.loads(call(server, "/openapi.json")[2])
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        status, _, text = call(server, path, example)
        assert status == 200, (path, text)
