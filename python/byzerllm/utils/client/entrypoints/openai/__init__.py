"""The OpenAI-compatible server, see `api_server`."""
