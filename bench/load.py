"""A load of streamed chat requests, the same for every server that speaks OpenAI's API.

One thread, plain sockets: an event is only decoded until the first text of an answer has come and once more for the
usage at its end. What the generator itself costs is measured and reported.
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from common import Problem

Message = Dict[str, str]


@dataclass
class Answer:
    """What came of one request; times in seconds since it was sent."""

    sent: float
    first: float
    last: float
    prompt_tokens: int
    completion_tokens: int
    text: str


class Events:
    """Takes a response's body as it comes and gives out the data of its events."""

    def __init__(self, chunked: bool) -> None:
        self.chunked = chunked
        self.raw = b""  # not taken apart yet
        self.left = 0  # bytes of the chunk that are still to come, its line end included
        self.line = b""  # the line that is not complete yet

    def feed(self, data: bytes) -> List[bytes]:
        """The data of the events that are now complete."""
        lines = (self.line + (self._unchunk(data) if self.chunked else data)).split(b"\n")
        self.line = lines.pop()
        return [line[6:].rstrip(b"\r") for line in lines if line.startswith(b"data: ")]

    def _unchunk(self, data: bytes) -> bytes:
        self.raw += data
        parts = []
        while self.raw:
            if self.left == 0:
                size, found, rest = self.raw.partition(b"\r\n")
                if not found:
                    break
                self.raw, self.left = rest, int(size.partition(b";")[0], 16) + 2
            piece = self.raw[: self.left]
            self.raw = self.raw[self.left :]
            # The last two bytes of a chunk are its line end.
            parts.append(piece[: max(0, self.left - 2)])
            self.left -= len(piece)
        return b"".join(parts)


def text_of(event: dict) -> str:
    """The text that an event adds to the answer."""
    choices = event.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


async def ask(address: Tuple[str, int], body: dict, keep_text: bool = False) -> Answer:
    """Sends one request and reads its stream to the end."""
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head + content)
    headers = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in headers.split(b"\r\n", 1)[0]:
        rest = await reader.read(2000)
        writer.close()
        raise Problem(f"the server answered {(headers + rest).decode(errors='replace')[:500]}", "See its log.")
    events = Events(b"transfer-encoding: chunked" in headers.lower())
    first, last, usage, text = 0.0, 0.0, None, []
    while data := await reader.read(65536):
        now = time.perf_counter()
        for event in events.feed(data):
            if event == b"[DONE]":
                continue
            last_event = b'"usage"' in event and b'"completion_tokens"' in event
            if first and not last_event and not keep_text:
                last = now
                continue
            decoded = json.loads(event)
            if "error" in decoded:
                raise Problem(f"the stream ended with {decoded['error']}", "See the server's log.")
            usage = decoded.get("usage") or usage
            piece = text_of(decoded)
            if piece:
                first, last = first or now, now
                text.append(piece)
    writer.close()
    if not first or not usage:
        raise Problem("an answer had no text or no usage", "See the server's log.")
    return Answer(sent, first - sent, last - sent, usage["prompt_tokens"], usage["completion_tokens"], "".join(text))


@dataclass(frozen=True)
class Shape:
    """What the clients ask for."""

    clients: int = 16
    requests: int = 48
    prompt_tokens: Tuple[int, int] = (50, 800)
    new_tokens: Tuple[int, int] = (64, 128)


def requests(shape: Shape, model: str, source: str, seed: int) -> List[dict]:
    """The bodies of a load: excerpts of a text, each begun by words of its own so that no earlier prompt helps."""
    chance = random.Random(seed)
    words = source.split()
    bodies = []
    for number in range(shape.requests):
        # The chat template and the question take some of the tokens; a word is about 1.3.
        count = max(4, int((chance.randint(*shape.prompt_tokens) - 48) * 0.745))
        start = chance.randrange(max(1, len(words) - count))
        excerpt = " ".join(words[start : start + count])
        bodies.append(
            {
                "model": model,
                "messages": [{"role": "user", "content": f"{seed}-{number}: {excerpt}\nWhat is this about?"}],
                "max_tokens": chance.randint(*shape.new_tokens),
                "temperature": 0,
                "ignore_eos": True,
            }
        )
    return bodies


async def _drive(address: Tuple[str, int], bodies: Sequence[dict], clients: int) -> List[Answer]:
    waiting = list(reversed(bodies))
    answers: List[Answer] = []

    async def client() -> None:
        while waiting:
            answers.append(await ask(address, waiting.pop()))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def drive(address: Tuple[str, int], bodies: Sequence[dict], clients: int) -> Dict[str, float]:
    """Lets so many clients ask one after the other until all is asked; returns what was reached."""
    began, busy = time.perf_counter(), time.process_time()
    answers = asyncio.run(_drive(address, bodies, clients))
    wall = time.perf_counter() - began
    return summary(answers, wall, (time.process_time() - busy) / wall)


def summary(answers: Sequence[Answer], wall: float, generator_share: float) -> Dict[str, float]:
    """Totals and times to the first token."""
    new = sum(answer.completion_tokens for answer in answers)
    prompt = sum(answer.prompt_tokens for answer in answers)
    firsts = sorted(answer.first for answer in answers)
    return {
        "requests": len(answers),
        "prompt_tokens": prompt,
        "shortest_prompt": min(answer.prompt_tokens for answer in answers),
        "longest_prompt": max(answer.prompt_tokens for answer in answers),
        "new_tokens": new,
        "seconds": wall,
        "new_tokens_per_second": new / wall,
        "all_tokens_per_second": (new + prompt) / wall,
        "first_token_median_ms": percentile(firsts, 50) * 1000,
        "first_token_p95_ms": percentile(firsts, 95) * 1000,
        "generator_cpu_share": generator_share,
    }


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` percent of the values do not exceed."""
    if not ascending:
        raise ValueError("no values")
    rank = -(-len(ascending) * share // 100)
    return ascending[max(0, int(rank) - 1)]


def second_turn(address: Tuple[str, int], model: str, source: str, seed: int, history: int = 1500) -> Dict[str, float]:
    """Asks about a long text, then asks again: the time to the first token of both turns."""
    chance = random.Random(seed)
    words = source.split()
    count = int((history - 60) * 0.8)
    start = chance.randrange(max(1, len(words) - count))
    question = f"{seed}: {' '.join(words[start : start + count])}\nWhat is this about?"
    messages: List[Message] = [{"role": "user", "content": question}]
    common = {"model": model, "max_tokens": 16, "temperature": 0}
    first = asyncio.run(ask(address, {**common, "messages": messages}, keep_text=True))
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Say it in one word."}]
    second = asyncio.run(ask(address, {**common, "messages": messages}))
    return {
        "history_tokens": first.prompt_tokens + first.completion_tokens,
        "prompt_tokens": second.prompt_tokens,
        "first_turn_ms": first.first * 1000,
        "second_turn_ms": second.first * 1000,
    }


def until_first_token(address: Tuple[str, int], body: dict, began: float, alive, limit: float = 120) -> float:
    """Asks again and again until a server that is just starting gives a first token; seconds since `began`."""
    last: Optional[BaseException] = None
    while time.perf_counter() - began < limit:
        try:
            answer = asyncio.run(ask(address, body))
            return answer.sent + answer.first - began
        except (OSError, Problem, asyncio.IncompleteReadError) as error:
            last = error
            if not alive():
                break
            time.sleep(0.002)
    raise Problem(f"the server did not come up: {last}", "See its log.")


def news() -> str:
    """The text that prompts are cut from."""
    import corpus
    from common import Step

    with Step("texts") as step:
        return Path(corpus.fetch(step)["english"]).read_text(encoding="utf-8")
