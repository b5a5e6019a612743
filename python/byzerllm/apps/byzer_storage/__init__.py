"""Byzer storage: import paths of Byzer-LLM, see `byzerllm.absent`."""
