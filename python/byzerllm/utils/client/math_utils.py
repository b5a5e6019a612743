"""Answers to problems of mathematics: what stands in the last `\\boxed{…}`, and whether two of them are the same."""

import re
from collections.abc import Sequence
from typing import Any

_INSTRUCTION = (
    "Solve the problem carefully. Simplify your answer as much as possible and put the final answer, "
    "and nothing else, into \\boxed{}."
)


def solve_problem(problem: str, llm: Any = None, **config: Any) -> str:
    """A model's answer to a problem, without the way to it. `config` are arguments of `chat_oai`."""
    if llm is None:
        from byzerllm.client import ByzerLLM

        llm = ByzerLLM()
    conversation = [{"role": "user", "content": f"{problem}\n{_INSTRUCTION}"}]
    answer = str(llm.chat_oai(conversation, **config)[0].output)
    boxed = last_boxed_only_string(answer)
    return answer.strip() if boxed is None else remove_boxed(boxed) or ""


def remove_boxed(string: str) -> str | None:
    """What stands inside of `\\boxed{…}`, or `None` for another text."""
    found = re.fullmatch(r"\\f?boxed\s*\{(.*)\}", string.strip(), re.DOTALL)
    return found[1] if found else None


def last_boxed_only_string(string: str) -> str | None:
    """The last `\\boxed{…}` of a text with everything in it, or `None`."""
    start = max(string.rfind("\\boxed"), string.rfind("\\fbox"))
    if start < 0:
        return None
    depth = 0
    for index in range(start, len(string)):
        depth += {"{": 1, "}": -1}.get(string[index], 0)
        if string[index] == "}" and depth == 0:
            return string[start : index + 1]
    return None


def is_equiv(str1: str | None, str2: str | None) -> float:
    """1.0 when two answers are written the same but for spaces, units and LaTeX's ornaments, else 0.0."""
    if str1 is None or str2 is None:
        return float(str1 is str2)
    return float(_plain(str1) == _plain(str2))


def is_equiv_chain_of_thought(str1: str, str2: str) -> float:
    """`is_equiv` of the last boxed answers of two solutions."""
    return is_equiv(_answer(str1), _answer(str2))


def voting_counts(responses: Sequence[str]) -> dict[str, int]:
    """How many solutions have an answer that is the same, by the first that has it."""
    votes: dict[str, int] = {}
    for answer in filter(None, map(_answer, responses)):
        known = next((other for other in votes if is_equiv(answer, other)), answer)
        votes[known] = votes.get(known, 0) + 1
    return votes


def eval_math_responses(responses: Sequence[str], solution: str | None = None, **args: Any) -> dict[str, Any]:
    """Which answer most solutions have, and with a known solution how often they are right.

    `expected_success` is the chance that one of as many tries is right, `success` whether one was, and `success_vote`
    whether the answer with the most votes is.
    """
    if not responses:
        return {"expected_success": 0, "success": False, "success_vote": 0, "voted_answer": None, "votes": 0}
    votes = voting_counts(responses)
    voted = max(votes, key=lambda answer: votes[answer]) if votes else None
    result: dict[str, Any] = {"voted_answer": voted, "votes": votes.get(voted or "", 0)}
    if solution is None:
        return result
    right = [is_equiv_chain_of_thought(response, solution) for response in responses]
    share = sum(right) / len(right)
    return {
        "expected_success": 1 - (1 - share) ** len(right),
        "success": any(right),
        "success_vote": is_equiv(voted, _answer(solution)),
        **result,
    }


def _answer(solution: str) -> str | None:
    boxed = last_boxed_only_string(solution)
    return None if boxed is None else remove_boxed(boxed)


def _plain(answer: str) -> str:
    """An answer in one of its many spellings."""
    answer = answer.strip().rstrip(".").replace("\n", "")
    for ornament in (
        "\\!",
        "\\,",
        "\\ ",
        "\\left",
        "\\right",
        "^{\\circ}",
        "^\\circ",
        "\\$",
        "$",
        "\\%",
        "%",
        " ",
    ):
        answer = answer.replace(ornament, "")
    answer = re.sub(r"\\text\{[^}]*\}$", "", answer)
    answer = answer.replace("tfrac", "frac").replace("dfrac", "frac")
    answer = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", answer)
    answer = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", answer)
    answer = re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", answer)
    answer = re.sub(r"(?<![\d.])\.(\d)", r"0.\1", answer)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+", answer):
        answer = answer.replace(",", "")
    if re.fullmatch(r"\w{1,2}=.*", answer):
        answer = answer.split("=", 1)[1]
    return "\\frac{1}{2}" if answer == "0.5" else answer
