"""Reranking (嵌入重排模型): a pair, and a list of pairs, by the default model for embeddings.

Changed: the path of the model is that of the variable MODEL.
"""

import os

import ray
from byzerllm.utils.client import ByzerLLM, InferBackend, LLMResponse

ray.init(address="auto", namespace="default", ignore_reinit_error=True)
llm = ByzerLLM()

llm.setup_gpus_per_worker(0.4).setup_num_workers(2).setup_infer_backend(InferBackend.Transformers)
llm.deploy(
    model_path=os.environ.get("MODEL", "/Users/wanghan/data/bge-reranker-base"),
    pretrained_model_type="custom/bge_rerank",
    udf_name="emb_rerank",
    infer_params={},
)
llm.setup_default_emb_model_name("emb_rerank")

sentence_pairs_01 = ["query", "passage"]
t1: list[LLMResponse] = llm.emb_rerank(sentence_pairs=sentence_pairs_01)
print(t1[0].output)

sentence_pairs_02 = [
    ["what is panda?", "hi"],
    [
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
        "endemic to China.",
    ],
]
t2: list[LLMResponse] = llm.emb_rerank(sentence_pairs=sentence_pairs_02)
print(t2[0].output)
