"""Settings of ByzerRetrieval: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """ClusterSettings EnvSettings JVMSettings TableSettings SearchQuery ResourceRequirementSettings
    ResourceRequirement""",
)
