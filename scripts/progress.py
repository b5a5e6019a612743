"""Steps that say what they do and how long they took, and problems that say how to mend them."""

import shutil
import sys
import threading
import time
from typing import List

QUIET_SECONDS = 10.0  # without a terminal, one progress line per step in this time


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

    def enter(self, step: "Step") -> None:
        """Shows a step."""
        with self.lock:
            self.steps.append(step)
            if self.terminal and len(self.steps) == 1:
                threading.Thread(target=self._draw_while_busy, daemon=True).start()

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

    def _draw_while_busy(self) -> None:
        while True:
            with self.lock:
                if not self.steps:
                    return
                text = " | ".join(step.describe() for step in self.steps)
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[K{text[:width]}")
                self.stream.flush()
            time.sleep(0.25)


BOARD = Board()


class Step:
    """A named piece of work: `with Step("build") as step: step.update("12 of 200")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._text = ""
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> "Step":
        self._started = self._shown = time.monotonic()
        BOARD.enter(self)
        return self

    def update(self, text: str) -> None:
        """Says how far the step is."""
        self._text = text
        now = time.monotonic()
        if not BOARD.terminal and now - self._shown >= QUIET_SECONDS:
            self._shown = now
            BOARD.line(f"  … {self.describe()}")

    def describe(self) -> str:
        """The step, how far it is and since when it runs."""
        return f"{self.name}: {self._text or 'working'} ({time.monotonic() - self._started:.0f} s)"

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        mark = "✗" if kind else "✓"
        BOARD.leave(self, f"{mark} {self.name} ({time.monotonic() - self._started:.1f} s)")
