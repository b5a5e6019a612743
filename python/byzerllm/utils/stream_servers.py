"""The mailboxes that streams of Byzer-LLM went through: a request's latest snapshot, until it was read to the end.

There they were Ray actors. Here they are plain objects for programs that keep streams of their own; `stream_chat_oai` needs
none.
"""

import threading
import time
from collections import deque
from typing import Any

RUNNING = "RUNNING"
"""What `get_item` says while a request has nothing new."""

_RETENTION_SECONDS = 10 * 60 * 60
_MANY_REQUESTS = 30


class BlockVLLMStreamServer:
    """Keeps the latest snapshot of each request. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: dict[str, Any] = {}
        self._done: set[str] = set()
        self._times: dict[str, float] = {}

    def add_item(self, request_id: str, item: Any) -> None:
        """Replaces the snapshot of a request. One that is marked as done stays as it is."""
        with self._lock:
            if request_id not in self._done:
                self._snapshots[request_id] = item
                self._times[request_id] = time.monotonic()

    def mark_done(self, request_id: str) -> None:
        """Says that nothing follows. What nobody fetched for ten hours is dropped when there is much."""
        with self._lock:
            if len(self._times) > _MANY_REQUESTS:
                oldest = time.monotonic() - _RETENTION_SECONDS
                for old in [name for name, when in self._times.items() if when < oldest]:
                    self._forget(old)
            self._done.add(request_id)
            self._times[request_id] = time.monotonic()

    def get_item(self, request_id: str) -> Any:
        """The latest snapshot; after `mark_done` once more the last one, then `None`."""
        with self._lock:
            if request_id in self._done:
                last = self._snapshots.get(request_id)
                self._forget(request_id)
                return last
            return self._snapshots.get(request_id)

    def _forget(self, request_id: str) -> None:
        self._snapshots.pop(request_id, None)
        self._times.pop(request_id, None)
        self._done.discard(request_id)


class VLLMStreamServer:
    """`BlockVLLMStreamServer` for event loops."""

    def __init__(self) -> None:
        self._server = BlockVLLMStreamServer()

    async def add_item(self, request_id: str, item: Any) -> None:
        """See `BlockVLLMStreamServer.add_item`."""
        self._server.add_item(request_id, item)

    async def mark_done(self, request_id: str) -> None:
        """See `BlockVLLMStreamServer.mark_done`."""
        self._server.mark_done(request_id)

    async def get_item(self, request_id: str) -> Any:
        """See `BlockVLLMStreamServer.get_item`."""
        return self._server.get_item(request_id)


class BlockBinaryStreamServer:
    """Keeps every item of each request, in order: pieces of sound cannot replace one another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, deque[Any]] = {}
        self._done: set[str] = set()

    def add_item(self, request_id: str, item: Any) -> None:
        """Adds an item to a request's queue."""
        with self._lock:
            if request_id not in self._done:
                self._items.setdefault(request_id, deque()).append(item)

    def mark_done(self, request_id: str) -> None:
        """Says that nothing follows."""
        with self._lock:
            self._done.add(request_id)

    def get_item(self, request_id: str) -> Any:
        """The next item; `"RUNNING"` while there is none, and `None` after the last."""
        with self._lock:
            items = self._items.get(request_id)
            if items:
                return items.popleft()
            if request_id not in self._done:
                return RUNNING
            self._items.pop(request_id, None)
            self._done.discard(request_id)
            return None
