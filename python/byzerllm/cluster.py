"""`byzerllm.connect_cluster`: what programs called instead of `ray.init`."""

from collections.abc import Mapping
from typing import Any

from byzerllm.errors import UnsupportedError
from byzerllm.notices import say_once


def connect_cluster(
    address: str = "auto",
    java_home: str | None = None,
    code_search_path: str | list[str] | None = None,
    init_options: Mapping[str, Any] = {},
) -> dict[str, str]:
    """Connects to a Ray cluster where Ray is installed and it answers; else there is nothing to do.

    Models need no cluster here. Returns the environment variables of Java workers, hence `{}`: retrieval,
    which runs in them, is not supported by this version.

    Args:
        address: the cluster's; `"auto"` for the one that runs here.
        java_home, code_search_path: for retrieval, and refused.
        init_options: further arguments of `ray.init`.

    Raises:
        UnsupportedError: `java_home` or `code_search_path` is given.

    Example:
        >>> byzerllm.connect_cluster()
        {}
    """
    if code_search_path is not None or java_home is not None:
        raise UnsupportedError(
            "connect_cluster(java_home=…, code_search_path=…) is for retrieval, which is not supported by this "
            "version; leave them out",
            param="code_search_path" if code_search_path is not None else "java_home",
        )
    from byzerllm import ray_stand_in

    ray = ray_stand_in.answering(address)
    if ray is None:
        say_once(f"connect_cluster: no Ray cluster answers at {address!r}; byzerllm's own engine needs none")
        return {}
    ray.init(
        address=address, namespace="default", ignore_reinit_error=True, log_to_driver=False, **init_options
    )
    return {}
