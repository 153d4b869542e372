"""Data sets as SWE-bench, Loc-Bench and we write them."""

import json

import pytest

from summidx.errors import UsageError
from summidx.evaluation.datasets import build_specs, index_names, load_instances

FIELDS = {
    "instance_id": "o__n-1",
    "repo": "o/n",
    "base_commit": "ab" * 20,
    "problem_statement": "It breaks.\u2028Badly.",
}


@pytest.fixture
def load(tmp_path):
    def load(*records):
        path = tmp_path / "set.jsonl"
        path.write_text(
            "\n".join(json.dumps(r, ensure_ascii=False) if isinstance(r, dict) else r for r in records) + "\n"
        )
        return load_instances(path)

    return load


def test_gold_comes_from_files_and_entities_or_edited_functions_or_a_patch(load):
    (own,) = load(FIELDS | {"files": ["a.py"], "entities": ["a.py:A.f"], "patch": "ignored"})
    assert (own.files, own.entities) == (("a.py",), ("a.py:A.f",))
    (loc_bench,) = load(FIELDS | {"edit_functions": ["a.py:A.f", "a.py:g", "b.py:h"], "patch": "..."})
    assert loc_bench.files == ("a.py", "b.py")
    (swe_bench,) = load(FIELDS | {"patch": "--- a/a.py\n"})
    assert (swe_bench.files, swe_bench.entities) == (None, None)
    (output,) = load(
        {"instance_id": "o__n-1", "meta_data": {k: v for k, v in FIELDS.items() if k != "instance_id"} | {"patch": "p"}}
    )
    assert (output.instance_id, output.patch) == ("o__n-1", "p")


def test_a_commit_that_several_instances_share_is_listed_once(load):
    instances = load(*(FIELDS | {"instance_id": str(n), "files": ["a.py"], "entities": []} for n in range(3)))
    assert build_specs(instances, {"o/n": "/clones/n"}) == [f"o__n@{'ab' * 20}=/clones/n@{'ab' * 20}"]
    assert index_names(instances[0]) == ("0", f"o__n@{'ab' * 20}", "o__n")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "set.jsonl:1: no JSON"),
        ("[1]", "a JSON object is expected"),
        (FIELDS, "neither `files` and `entities` nor a `patch`"),
        (FIELDS | {"files": "a.py", "base_commit": "main"}, "base_commit is no commit id"),
        (FIELDS | {"files": [1]}, "`files` is no list of texts"),
        (FIELDS | {"problem_statement": " "}, "`problem_statement` is missing"),
    ],
)
def test_a_bad_line_is_named(load, record, message):
    with pytest.raises(UsageError, match=message):
        load(record)


def test_ids_come_once(load):
    with pytest.raises(UsageError, match="a second time"):
        load(FIELDS | {"files": []}, FIELDS | {"files": []})
