"""Things worth telling once, through the logger `byzerllm` (shown on stderr unless the program configures it)."""

_said: set[str] = set()


def say_once(message: str) -> None:
    """Logs a notice at most once per process."""
    if message not in _said:
        import logging

        _said.add(message)
        logging.getLogger("byzerllm").warning(message)
