"""Warm children: one for each source, kept for the next call."""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from byzerllm.sandbox.child import Child
from byzerllm.sandbox.settings import SandboxSettings

MOST_CHILDREN = 8

Key = tuple[str, SandboxSettings, tuple[str, ...]]


class _Slot:
    """The place of one child. Calls of one source run one after the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: Child | None = None

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
            self.child = None


class Pool:
    """Children by source and settings. Those unused for longest make room for new ones."""

    def __init__(self, most: int = MOST_CHILDREN) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[Key, _Slot] = OrderedDict()

    def call(
        self, key: Key, function: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[Any, str]:
        """Runs a function of a source, in its child when that is there."""
        with self._child(key) as child:
            return child.call(function, arguments, keywords)

    def functions(self, key: Key) -> list[str]:
        """Loads a source and names its functions."""
        with self._child(key) as child:
            return child.functions

    def report(self, key: Key) -> dict[str, Any]:
        """Which layers are around a source."""
        with self._child(key) as child:
            return child.report

    def close(self) -> None:
        """Ends every child, those in the middle of a call too."""
        with self._lock:
            slots = list(self._slots.values())
            self._slots.clear()
        for slot in slots:
            if slot.lock.acquire(blocking=False):
                try:
                    slot.close()
                finally:
                    slot.lock.release()
            elif slot.child is not None:
                slot.child.kill()

    def forget(self) -> None:
        """Leaves the children to the process that this one was forked from."""
        for slot in self._slots.values():
            if slot.child is not None:
                slot.child.forget()
        self.__init__(self._most)  # type: ignore[misc]

    @contextmanager
    def _child(self, key: Key) -> Iterator[Child]:
        """The child of a source, to be used by nobody else meanwhile."""
        while True:
            slot = self._slot(key)
            with slot.lock:
                if self._slots.get(key) is not slot:
                    continue  # it has made room for another between the two lines
                if slot.child is None or not slot.child.alive:
                    slot.close()
                    slot.child = Child(*key)
                yield slot.child
                return

    def _slot(self, key: Key) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            for other in list(self._slots):
                if len(self._slots) <= self._most:
                    break
                old = self._slots[other]
                if old is not slot and old.lock.acquire(blocking=False):
                    try:
                        del self._slots[other]
                        old.close()
                    finally:
                        old.lock.release()
        return slot


POOL = Pool()
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)
