"""The streams of this process by the names of their requests, so that `abort` finds them."""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from byzerllm._native import Call


class Stream:
    """A stream that somebody reads."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self.aborted = False
        """Whether `abort` ended it, which is no failure for who reads it."""

    def abort(self) -> None:
        """Ends it."""
        self.aborted = True
        self._call.cancel()


_streams: "WeakValueDictionary[str, Stream]" = WeakValueDictionary()


def note(request_id: str, call: "Call") -> Stream:
    """Remembers a stream for as long as its reader does."""
    stream = _streams[request_id] = Stream(call)
    return stream


def abort(request_id: str) -> bool:
    """Ends the stream of a request; `False` when there is none in this process."""
    stream = _streams.get(request_id)
    if stream is None:
        return False
    stream.abort()
    return True
