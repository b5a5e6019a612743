"""LoRA adapters of a deployment inside this process, on a tiny checkpoint."""

import pytest
from conftest import CHECKPOINTS

from byzerllm.errors import ConflictError, InvalidRequestError, NotFoundError

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"temperature": 0, "max_length": 12}
BASE = CHECKPOINTS / "qwen2-bf16"
ADAPTERS = CHECKPOINTS / "adapters"


def ask(llm, model):
    return llm.chat_oai(HELLO, model=model, llm_config=GREEDY)[0].output


def test_adapters_come_and_go(llm):
    llm.deploy(
        str(BASE),
        udf_name="chat",
        infer_params={"compute": "exact", "adapters": {"patterns": str(ADAPTERS / "patterns")}},
    )
    base, patterns = ask(llm, "chat"), ask(llm, "chat:patterns")
    assert base != patterns
    loaded = llm.load_adapter("chat", "stable", ADAPTERS / "stable")
    assert (loaded["name"], loaded["rank"]) == ("stable", 40)
    assert [adapter["name"] for adapter in llm.adapters("chat")] == ["patterns", "stable"]
    assert ask(llm, "chat:stable") not in (base, patterns)
    assert ask(llm, "chat:patterns") == patterns and ask(llm, "chat") == base
    assert llm.is_model_exist("chat:stable") and not llm.is_model_exist("chat:other")
    with pytest.raises(ConflictError, match="stable"):
        llm.load_adapter("chat", "stable", ADAPTERS / "stable")
    with pytest.raises(InvalidRequestError, match="gpt_neox"):
        llm.load_adapter("chat", "neox", ADAPTERS / "neox")
    llm.unload_adapter("chat", "stable")
    with pytest.raises(NotFoundError, match="patterns"):
        ask(llm, "chat:stable")
    with pytest.raises(NotFoundError):
        llm.unload_adapter("chat", "stable")


@pytest.mark.parametrize("key", ["adapters", "backend.lora_modules"])
def test_adapters_that_are_no_names_and_directories_are_refused(llm, key):
    for value in ["patterns", ["patterns"], {"patterns": 1}]:
        with pytest.raises(InvalidRequestError, match="names and directories"):
            llm.deploy(str(BASE), udf_name="chat", infer_params={key: value})
