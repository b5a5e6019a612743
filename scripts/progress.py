"""Steps that say what they do and how long they took, and problems that say how to mend them."""

import shutil
import sys
import threading
import time
from typing import List

QUIET_SECONDS = 10.0  # without a terminal the steps at work are told once in this time


class Problem(Exception):
    """Something failed that the user can mend."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix

    def report(self) -> int:
        """Prints what failed and what to do; returns the exit code."""
        print(f"error: {self}\n  fix: {self.fix}", file=sys.stderr, flush=True)
        return 1


class Board:
    """Where steps are shown: on a terminal those at work share one line that is drawn again and again."""

    def __init__(self) -> None:
        self.stream = sys.stderr if not sys.stdout.isatty() and sys.stderr.isatty() else sys.stdout
        self.terminal = self.stream.isatty()
        self.lock = threading.RLock()
        self.steps: List["Step"] = []
        self.turn = 0  # a thread that shows steps ends when all of its time are over

    def enter(self, step: "Step") -> None:
        """Shows a step."""
        with self.lock:
            self.steps.append(step)
            if len(self.steps) == 1:
                self.turn += 1
                show = self._draw if self.terminal else self._tell
                threading.Thread(target=show, args=(self.turn,), daemon=True).start()

    def leave(self, step: "Step", line: str) -> None:
        """Replaces a step by its last line."""
        with self.lock:
            self.steps.remove(step)
            self.line(line)

    def line(self, text: str) -> None:
        """Writes a line that stays."""
        with self.lock:
            erase = "\r\x1b[K" if self.terminal else ""
            self.stream.write(f"{erase}{text}\n")
            self.stream.flush()

    def _draw(self, turn: int) -> None:
        while True:
            with self.lock:
                if not self.steps or turn != self.turn:
                    return
                text = " | ".join(step.describe() for step in self.steps)
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[K{text[:width]}")
                self.stream.flush()
            time.sleep(0.25)

    def _tell(self, turn: int) -> None:
        while True:
            time.sleep(QUIET_SECONDS)
            with self.lock:
                if not self.steps or turn != self.turn:
                    return
                for step in self.steps:
                    self.line(f"  … {step.describe()}")


BOARD = Board()


class Step:
    """A named piece of work: `with Step("build") as step: step.update("12 of 200")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._text = ""
        self._started = time.monotonic()

    def __enter__(self) -> "Step":
        self._started = time.monotonic()
        BOARD.enter(self)
        return self

    def update(self, text: str) -> None:
        """Says how far the step is."""
        self._text = text

    def describe(self) -> str:
        """The step, how far it is and since when it runs."""
        return f"{self.name}: {self._text or 'working'} ({time.monotonic() - self._started:.0f} s)"

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        mark = "✗" if kind else "✓"
        BOARD.leave(self, f"{mark} {self.name} ({time.monotonic() - self._started:.1f} s)")
