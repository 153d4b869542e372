"""Answers every instance of a data set from the index of its own commit, and judges the rankings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from summidx.evaluation.datasets import LOCAGENT_LEAVES_OUT, Instance, index_names
from summidx.evaluation.gold import Gold, Span, find_gold, parse_patch
from summidx.evaluation.metrics import LEVELS, LevelResult, module_of, normalize_entity, rank_gold, summarize_level
from summidx.records import Hit, Level
from summidx.search.ranking import Mode
from summidx.search.searcher import Searcher
from summidx.store.generations import IndexRoot

DEPTH = 100
"""Items of a ranking that are looked at; a gold item further down counts as not found."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One instance: its index ("" where there is none), and its result by level (`metrics.LEVELS`).

    A level is missing where there is nothing to be found at it. `note` says what is wrong with it, if anything is.
    """

    instance_id: str
    index: str
    levels: dict[str, LevelResult]
    note: str = ""


def evaluate(
    instances: Sequence[Instance],
    root: IndexRoot,
    searcher: Searcher,
    mode: Mode,
    *,
    locagent_filter: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Judged]:
    """Judge all instances, in their order.

    Args:
        instances: what to look for, and where it is.
        root: where the indexes lie.
        searcher: answers; its root is `root`.
        mode: what the search goes by.
        locagent_filter: leave out what LocAgent's evaluation leaves out.
        progress: told (instances done, of so many).

    Raises:
        StoreError: an index is damaged, or was embedded by another model than the searcher's.
        UsageError: a patch is no unified diff.
    """
    wanted = [each for each in instances if not locagent_filter or each.instance_id not in LOCAGENT_LEAVES_OUT]
    published = set(root.names())
    judged = []
    for done, instance in enumerate(wanted, 1):
        name = next((each for each in index_names(instance) if each in published), "")
        judged.append(_judge(instance, name, root, searcher, mode))
        if progress:
            progress(done, len(wanted))
    return judged


def build_report(judged: Sequence[Judged]) -> dict[str, Any]:
    """The figures of an evaluation, and each instance, as JSON values.

    `left_out`: instances with an index that have no gold at a level; they count at the other levels only.
    """
    answered = [each for each in judged if each.index]
    report: dict[str, Any] = {
        "n": len(answered),
        "no_index": len(judged) - len(answered),
        "left_out": {level: sum(level not in each.levels for each in answered) for level in LEVELS},
    }
    for level in LEVELS:
        report[level] = summarize_level([each.levels[level] for each in answered if level in each.levels], level)
    report["instances"] = [_render(each) for each in judged]
    return report


def _render(judged: Judged) -> dict[str, Any]:
    levels = {
        level: {
            "gold": [{"item": item, "rank": rank} for item, rank in zip(found.gold, found.ranks, strict=True)],
            "outranked_by": list(found.outranked_by),
        }
        for level, found in judged.levels.items()
    }
    return {"instance_id": judged.instance_id, "index": judged.index or None, "note": judged.note} | levels


def _judge(instance: Instance, name: str, root: IndexRoot, searcher: Searcher, mode: Mode) -> Judged:
    if not name:
        return Judged(instance.instance_id, "", {}, f"no index {' or '.join(index_names(instance))}")
    commit = root.require_manifest(name).commit
    is_its_own = bool(commit) and commit.startswith(instance.base_commit.lower())
    note = "" if is_its_own else f"the index is of {f'commit {commit}' if commit else 'a plain folder'}, not of its own"
    gold = _known_gold(instance)
    if gold is None:
        spans = _spans_of_index(root, name) if is_its_own else None
        gold = find_gold(parse_patch(instance.patch), (lambda path: spans.get(path, ())) if spans else lambda _: ())
        if not is_its_own:
            note += ": its lines say nothing of the patch's, only files are judged"

    def ask(levels: Iterable[Level]) -> list[Hit]:
        return searcher.search(instance.problem_statement, repos=[name], levels=levels, k=DEPTH, mode=mode)

    results = {}
    if gold.files:
        results["files"] = rank_gold(gold.files, (hit.path for hit in ask([Level.FILE])))
    if gold.entities:
        entities = [normalize_entity(each) for each in gold.entities]
        found = [normalize_entity(f"{hit.path}:{hit.qualified_name}") for hit in ask([Level.FUNCTION, Level.CLASS])]
        results["modules"] = rank_gold(map(module_of, entities), map(module_of, found))
        results["functions"] = rank_gold(entities, found)
    return Judged(instance.instance_id, name, results, note)


def _known_gold(instance: Instance) -> Gold | None:
    """What the data set itself says; None where entities must be read from the patch."""
    if instance.files is None or (instance.entities is None and instance.patch):
        return None
    return Gold(instance.files, instance.entities or ())


def _spans_of_index(root: IndexRoot, name: str) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for document in root.open(name).table.documents([Level.FUNCTION, Level.CLASS]):
        span = Span(document.qualified_name, document.start_line, document.end_line, document.level is Level.CLASS)
        spans.setdefault(document.path, []).append(span)
    return spans
