"""Pure: hits, indexes, trees and predictions for people, in a terminal or a pipe. What an index holds is not trusted.

Everything is a rich `Text`, never markup, and characters that would steer a terminal are shown as escapes. In a
terminal summaries are wrapped; in a pipe each thing is on one line, whole, without colours.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from summidx.escaping import escape_text
from summidx.prediction import Prediction, PredictionCheck
from summidx.records import Counts, Document, Hit, Level, Manifest, Origin, Status, count_where

FAULTS_SHOWN = 3
_PIPE_WIDTH = 100_000
_INDENT = " " * 4
MARKS = {Status.OK: "", Status.DEGRADED: "~ ", Status.FAILED: "✗ "}
STYLES = {Status.OK: "", Status.DEGRADED: "yellow", Status.FAILED: "red"}


def make_console(file: TextIO) -> Console:
    """A console that takes nothing for markup, and does not fold what goes into a pipe."""
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(file=file, highlight=False, markup=False, emoji=False, color_system=None, width=_PIPE_WIDTH)
    )


def print_hits(console: Console, hits: Sequence[Hit]) -> None:
    """Rank, place, what it is and its summary, best first."""
    if not hits:
        console.print("nothing found", style="dim")
    many = len({hit.repo for hit in hits}) > 1
    for rank, hit in enumerate(hits, start=1):
        place = escape_text(hit.path) + (f":{hit.start_line}" if hit.start_line else "")
        kind = f"{hit.level.value}{f' in {escape_text(hit.repo)}' if many else ''}"
        name = "" if hit.qualified_name == hit.path else f"  {escape_text(hit.qualified_name)}"
        head = Text.assemble(
            (f"{rank:>2}  ", "dim"), (place, "cyan"), (name, "bold"), (f"  {kind}  {hit.score:.2f}", "dim")
        )
        console.print(head, soft_wrap=True)
        summary = MARKS[hit.status] + (escape_text(hit.summary) or "no summary: the LLM could not be reached")
        width = max(20, console.width - len(_INDENT))
        for line in Text(summary, style=STYLES[hit.status]).wrap(console, width):
            line.rstrip()
            console.print(Text.assemble(_INDENT, line), soft_wrap=True)


def print_indexes(console: Console, indexes: Iterable[tuple[str, Manifest | None, str]]) -> None:
    """A table of indexes: name, manifest, and what is wrong where there is no manifest."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "commit", "documents", "summaries", "embedding", "built (UTC)"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("commit", "built (UTC)"))
    for name, manifest, error in indexes:
        label = Text(escape_text(name), style="bold")
        if manifest is None:
            table.add_row(label, Text("damaged", style="red"), Text(escape_text(error), style="red"))
            continue
        table.add_row(
            label,
            Text(escape_text(manifest.commit[:8]) or "(folder)"),
            _count_documents(manifest.counts),
            Text(escape_text(manifest.summarizer)),
            Text(escape_text(manifest.embedding_model.partition("@")[0].removeprefix("sentence-transformers/"))),
            Text(escape_text(manifest.built_at[:16].replace("T", " "))),
        )
    console.print(table)


def print_prediction(console: Console, prediction: Prediction, check: PredictionCheck | None) -> None:
    """What each repository that will be built would cost, why it is built, and what that makes in all."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("repository", "units", "cache hits", "calls", "tokens in", "tokens out", "embeddings", "why"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("repository", "why") else "right")
    for each in prediction.repositories:
        figures = (each.units, each.cache_hits, each.calls, each.tokens_in, each.tokens_out, each.vectors)
        why = Text(escape_text(each.problem or each.why), style="red" if each.problem else "")
        shown = [""] * len(figures) if each.problem else [f"{figure:,}" for figure in figures]
        table.add_row(Text(escape_text(each.name), style="bold"), *shown, why)
    if prediction.repositories:
        console.print(table)
    for known in prediction.known_failures:
        listed = Text.assemble((escape_text(known.name), "bold"), (f"  {escape_text(known.why)}", "yellow"))
        console.print(listed, soft_wrap=True)
    for line in describe_prediction(prediction):
        console.print(Text(line), soft_wrap=True)
    if prediction.confirm:
        console.print(Text(f"It would stop: {escape_text(prediction.confirm)}", style="yellow"), soft_wrap=True)
    if check is not None:
        about = f"{check.repositories} {'repository' if check.repositories == 1 else 'repositories'}"
        console.print(Text(f"Last prediction ({check.made_at[:16]}, {about}): {check.describe()}"), soft_wrap=True)


def describe_prediction(prediction: Prediction) -> list[str]:
    """What a run would cost, in lines: the sums, the time, how busy each side would be, and what that is from."""
    known = f", {describe_known(len(prediction.known_failures))}" if prediction.known_failures else ""
    lines = [f"{len(prediction.repositories):,} to build, {prediction.up_to_date:,} up to date{known}"]
    if prediction.repositories:
        lines += [
            (
                f"{prediction.units:,} units: {prediction.cache_hits:,} cache hits, {prediction.calls:,} calls, "
                f"{prediction.tokens_in:,} tokens in, {prediction.tokens_out:,} out, {prediction.vectors:,} embeddings"
            ),
            (
                f"about {describe_seconds(prediction.seconds)}: LLM server busy {prediction.llm_busy:.0%}, "
                f"embedding {prediction.embedding_busy:.0%}"
            ),
            *(f"  {each}" for each in prediction.basis),
        ]
    return lines


def describe_known(n: int) -> str:
    """How many repositories are not tried, since they are known to fail."""
    return f"{n:,} known failure{'s' if n != 1 else ''} not tried"


def describe_seconds(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def describe_counts(counts: Counts) -> str:
    """The ledger in words: how many documents, by level, and by status and origin."""
    levels = ", ".join(f"{count_where(counts, level=level)} {level.value}" for level in Level if level in counts)
    ends = []
    for status in Status:
        by_origin = {
            origin: count_where(counts, status=status, origin=origin)
            for origin in [*(each.value for each in Origin), "none"]
        }
        if total := sum(by_origin.values()):
            origins = ", ".join(f"{n} {origin}" for origin, n in by_origin.items() if n and origin != "none")
            ends.append(f"{total} {status.value}{f' ({origins})' if origins else ''}")
    return f"{count_where(counts)} documents: {levels or 'none'}; {', '.join(ends) or 'nothing'}"


def describe_faults(documents: Iterable[Document]) -> list[str]:
    """A line for each status that is not ok: how many documents, and the first few with their reasons."""
    faults = [document for document in documents if document.status is not Status.OK]
    lines = []
    for status in (Status.FAILED, Status.DEGRADED):
        found = [document for document in faults if document.status is status]
        if found:
            named = "; ".join(
                f"{escape_text(each.id)}: {escape_text(each.reason) or 'no reason'}" for each in found[:FAULTS_SHOWN]
            )
            more = f"; and {len(found) - FAULTS_SHOWN} more" if len(found) > FAULTS_SHOWN else ""
            lines.append(f"{MARKS[status]}{len(found)} {status.value}: {named}{more}")
    return lines


def _count_documents(counts: Counts) -> Text:
    text = Text(str(count_where(counts)))
    for status in (Status.FAILED, Status.DEGRADED):
        if n := count_where(counts, status=status):
            text.append(f", {n} {status.value}", style=STYLES[status])
    return text


def print_evaluation(console: Console, report: Mapping[str, Any]) -> None:
    """Figures by level, then the instances with a gold item past the first ten, and what stands before it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    measures = ("acc@1", "acc@3", "acc@5", "acc@10", "mrr", "recall@20")
    for heading in ("level", "n", *measures):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for level in ("files", "modules", "functions"):
        figures = report[level]
        shown = [f"{figures[name]:.3f}" if name in figures else "" for name in measures]
        table.add_row(level, str(figures["n"]), *shown)
    console.print(table)
    left_out = ", ".join(f"{n} without {level}" for level, n in report["left_out"].items() if n)
    console.print(
        f"{report['n']} instances, {report['no_index']} more have no index{'; ' if left_out else ''}{left_out}"
    )
    for instance in report["instances"]:
        if instance["note"]:
            console.print(
                Text(f"{escape_text(instance['instance_id'])}: {escape_text(instance['note'])}", style="yellow")
            )
        for level in ("files", "functions"):
            found = instance.get(level)
            if found and any(gold["rank"] is None or gold["rank"] > 10 for gold in found["gold"]):
                ranks = ", ".join(f"{gold['item']} {gold['rank'] or 'not found'}" for gold in found["gold"])
                before = ", ".join(found["outranked_by"][:3])
                line = f"{instance['instance_id']}  {level}: {ranks}; before it: {before}"
                console.print(Text(escape_text(line)), soft_wrap=True)
