"""The records of ByzerRetrieval."""

import json

import pytest

from byzerllm import records
from byzerllm.errors import InvalidRequestError

EXAMPLES = [
    records.ClusterSettings("cluster", "/data", 2),
    records.EnvSettings(javaHome="/jdk", path="/jdk/bin"),
    records.JVMSettings(["-Xmx2g"]),
    records.TableSettings("db", "表", "st(field(_id,long))", "/data", 1),
    records.SearchQuery(
        "db", "table", "words", ["content"], [0.5], "vector", {"field": "a", "value": 1}, limit=3
    ),
    records.ResourceRequirement("CPU", 1.0),
    records.ResourceRequirementSettings([records.ResourceRequirement("CPU", 0.5)]),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_its_json(record):
    kind = type(record)
    assert kind.from_json(record.json()) == record
    for wrong in ("{", "[]", '{"no_such": 1}', "{}"):
        with pytest.raises(InvalidRequestError, match=kind.__name__):
            kind.from_json(wrong)


def test_keys_are_the_servers():
    assert json.loads(EXAMPLES[0].json()) == {"name": "cluster", "location": "/data", "numNodes": 2}
    assert json.loads(EXAMPLES[3].json())["status"] == "open" and "表" in EXAMPLES[3].json()
    query = records.SearchQuery("db", "table", None, [], [], None)
    assert (query.filters, query.sorts, query.limit) == ({}, [], 10)
    assert json.loads(EXAMPLES[6].json()) == {
        "resourceRequirements": [{"name": "CPU", "resourceQuantity": 0.5}]
    }
