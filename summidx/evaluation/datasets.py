"""Sets of issues with the places where they were mended: JSON lines as SWE-bench, Loc-Bench and we write them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from summidx.errors import UsageError

LOCAGENT_LEAVES_OUT = frozenset(
    """pytest-dev__pytest-5227 sympy__sympy-15345 sympy__sympy-21614 scikit-learn__scikit-learn-13439 sympy__sympy-11400
    sympy__sympy-19487 sympy__sympy-15308 django__django-12915 sympy__sympy-20590 sympy__sympy-17022
    django__django-11099 django__django-13220 django__django-11964 matplotlib__matplotlib-25332 django__django-10914
    django__django-14915 django__django-11049 django__django-11564 sympy__sympy-17655 sympy__sympy-16106
    sympy__sympy-12171 django__django-15400 django__django-14411 sympy__sympy-21055 django__django-15213
    django__django-15902 tobymao__sqlglot-4477 pyodide__pyodide-1215 django__django-17811 tobymao__sqlglot-4497
    optuna__optuna-5778 sagemath__sage-36814 tobymao__sqlglot-4457 tobymao__sqlglot-4505 tobymao__sqlglot-4430
    raft-tech__TANF-app-3234 AllenNeuralDynamics__foraging-behavior-browser-106
    Australian-Text-Analytics-Platform__atap-corpus-slicer-3""".split()  # noqa: SIM905 - 38 quoted words read worse
)
"""`filtered_instances` of LocAgent's evaluation/eval_metric.py: 26 of SWE-bench Lite's 300, and 12 of Loc-Bench."""

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")


@dataclass(frozen=True, slots=True)
class Instance:
    """One issue. `files` and `entities` are None where only the patch tells them (`gold.find_gold`)."""

    instance_id: str
    repo: str
    """`owner/name`."""
    base_commit: str
    problem_statement: str
    files: tuple[str, ...] | None
    entities: tuple[str, ...] | None
    """`path:Class.method`, `path:function` or `path:Class`."""
    patch: str = ""


def load_instances(path: Path) -> list[Instance]:
    """Read a file of JSON lines, one instance each.

    Fields: `instance_id`, `repo`, `base_commit`, `problem_statement`, and the gold: `files` and `entities`, or
    Loc-Bench's `edit_functions`, or a `patch`. LocAgent's outputs, which hold them under `meta_data`, are read as well.

    Raises:
        UsageError: the file cannot be read, a line is no instance, or an id comes twice; it names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}), so there is nothing to evaluate") from error
    instances: dict[str, Instance] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        instance = _read_line(line, f"{path}:{number}")
        if instance.instance_id in instances:
            raise UsageError(f"{path}:{number}: {instance.instance_id!r} comes a second time")
        instances[instance.instance_id] = instance
    if not instances:
        raise UsageError(f"{path} holds no instance: one JSON object a line is expected")
    return list(instances.values())


def index_names(instance: Instance) -> tuple[str, str, str]:
    """Names under which the index of an instance may lie, the most exact first."""
    repo = instance.repo.replace("/", "__")
    return instance.instance_id, f"{repo}@{instance.base_commit}", repo


def build_specs(instances: Iterable[Instance], sources: Mapping[str, str]) -> list[str]:
    """One `NAME=PATH@COMMIT` for each commit that the instances need, as `--repos-file` reads them.

    Args:
        instances: their `repo` is among `sources`.
        sources: path of the clone of each repository.
    """
    wanted = {index_names(each)[1]: f"{sources[each.repo]}@{each.base_commit}" for each in instances}
    return [f"{name}={spec}" for name, spec in sorted(wanted.items())]


def _read_line(line: str, where: str) -> Instance:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: no JSON ({error})") from error
    if not isinstance(record, dict):
        raise UsageError(f"{where}: a JSON object is expected, one a line")
    if isinstance(record.get("meta_data"), dict):
        record = record["meta_data"] | {"instance_id": record.get("instance_id")}
    texts = {}
    for name in ("instance_id", "repo", "base_commit", "problem_statement"):
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise UsageError(f"{where}: the field `{name}` is missing, or no text")
        texts[name] = record[name]
    if not _COMMIT.fullmatch(texts["base_commit"]):
        raise UsageError(f"{where}: base_commit is no commit id: {texts['base_commit'][:80]!r}")
    entities = _read_list(record, "entities", where)
    if entities is None:
        entities = _read_list(record, "edit_functions", where)
    files = _read_list(record, "files", where)
    if files is None and entities is not None:
        files = tuple(dict.fromkeys(entity.partition(":")[0] for entity in entities))
    patch = record.get("patch")
    if files is None and not isinstance(patch, str):
        raise UsageError(f"{where}: neither `files` and `entities` nor a `patch` says what is to be found")
    return Instance(**texts, files=files, entities=entities, patch=patch if isinstance(patch, str) else "")


def _read_list(record: Mapping[str, Any], name: str, where: str) -> tuple[str, ...] | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, str):  # some exports hold lists as text
        try:
            value = json.loads(value.replace("'", '"'))
        except ValueError:
            value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where}: the field `{name}` is no list of texts")
    return tuple(value)
