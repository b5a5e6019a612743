"""The records that ByzerRetrieval exchanges: plain objects with `json()` and `from_json()`.

Attributes and JSON keys are written the same, in the way of the server.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from byzerllm.errors import InvalidRequestError

R = TypeVar("R", bound="_Record")


class _Record:
    def json(self) -> str:
        """This record as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)  # type: ignore[call-overload]

    @classmethod
    def _read(cls: type[R], json_str: str) -> R:
        try:
            found = json.loads(json_str)
        except ValueError as error:
            raise InvalidRequestError(
                f"this is no JSON of a {cls.__name__}: {error}", param="json_str"
            ) from None
        return cls._made(found)

    @classmethod
    def _made(cls: type[R], found: Any) -> R:
        names = [one.name for one in fields(cls)]  # type: ignore[arg-type]
        if not isinstance(found, dict) or not found.keys() <= set(names):
            raise InvalidRequestError(
                f"a {cls.__name__} is an object of {', '.join(names)}, not {found!r}", param="json_str"
            )
        try:
            return cls(**found)
        except TypeError as error:
            raise InvalidRequestError(f"a {cls.__name__} is incomplete: {error}", param="json_str") from None


@dataclass
class ClusterSettings(_Record):
    """Where a cluster lies and how many nodes it has."""

    name: str
    location: str
    numNodes: int

    @staticmethod
    def from_json(json_str: str) -> "ClusterSettings":
        """Reads what `json()` wrote."""
        return ClusterSettings._read(json_str)


@dataclass
class EnvSettings(_Record):
    """Where Java lies."""

    javaHome: str
    path: str

    @staticmethod
    def from_json(json_str: str) -> "EnvSettings":
        """Reads what `json()` wrote."""
        return EnvSettings._read(json_str)


@dataclass
class JVMSettings(_Record):
    """Options of the Java virtual machine."""

    options: list[str]

    @staticmethod
    def from_json(json_str: str) -> "JVMSettings":
        """Reads what `json()` wrote."""
        return JVMSettings._read(json_str)


@dataclass
class TableSettings(_Record):
    """A table with its schema."""

    database: str
    table: str
    schema: str
    location: str
    num_shards: int
    status: str = "open"

    @staticmethod
    def from_json(json_str: str) -> "TableSettings":
        """Reads what `json()` wrote."""
        return TableSettings._read(json_str)


@dataclass
class SearchQuery(_Record):
    """A query by words, by a vector, or both, among the rows that pass the filters."""

    database: str
    table: str
    keyword: str | None
    fields: list[str]
    vector: list[float]
    vectorField: str | None
    filters: dict[str, Any] = field(default_factory=dict)
    sorts: list[dict[str, str]] = field(default_factory=list)
    limit: int = 10

    @staticmethod
    def from_json(json_str: str) -> "SearchQuery":
        """Reads what `json()` wrote."""
        return SearchQuery._read(json_str)


@dataclass
class ResourceRequirement(_Record):
    """So much of a resource."""

    name: str
    resourceQuantity: float

    @staticmethod
    def from_json(json_str: str) -> "ResourceRequirement":
        """Reads what `json()` wrote."""
        return ResourceRequirement._read(json_str)


@dataclass
class ResourceRequirementSettings(_Record):
    """What each node of a cluster needs."""

    resourceRequirements: list[ResourceRequirement]

    @staticmethod
    def from_json(json_str: str) -> "ResourceRequirementSettings":
        """Reads what `json()` wrote."""
        settings = ResourceRequirementSettings._read(json_str)
        settings.resourceRequirements = [
            ResourceRequirement._made(found) for found in settings.resourceRequirements
        ]
        return settings
