"""Helpers about Ray's actors: an import path of Byzer-LLM, see `byzerllm.absent`. There are no actors here."""

from byzerllm.absent import names

__getattr__ = names(__name__, "cancel_placement_group get_actor_info")
