"""Prompt functions: a function whose docstring is the prompt and whose return annotation says what comes back.

`byzerllm.prompt`, `byzerllm.prompt_lazy` and `llm.prompt` make them; see `byzerllm.prompts.functions`.
"""
