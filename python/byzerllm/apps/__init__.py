"""Applications: import paths of Byzer-LLM, see `byzerllm.absent`."""
