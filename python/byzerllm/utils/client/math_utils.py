"""Evaluation of mathematics: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """solve_problem is_equiv eval_math_responses""",
)
