"""The older path of `byzerllm.utils.ray_utils`."""

from byzerllm.absent import names

__getattr__ = names(__name__, "cancel_placement_group get_actor_info")
