"""Programs of Byzer-LLM that are started by their import path."""
