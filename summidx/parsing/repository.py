"""The files of one repository, parsed in a process that may die: what then becomes of the file that it died on."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from summidx.errors import ParseError, Unparsable
from summidx.parsing.links import Links
from summidx.parsing.process import Job, Run, run_child
from summidx.parsing.redaction import redact
from summidx.parsing.units import FileFacts
from summidx.records import ParsedRepo, Skip, SkipReason, SourceFile, Unit
from summidx.settings import ParseSettings
from summidx.sources import classify
from summidx.stop import Stop

MAX_CRASHING_FILES = 3
"""With more files that crash the parser, or one that does even when it is only read, the fault is hardly theirs."""
_ID_SEPARATOR = "::"


def parse_files(files: Sequence[SourceFile], settings: ParseSettings, stop: Stop) -> ParsedRepo:
    """See `summidx.parsing.parse`."""
    stop.check()
    jobs, skips = _prepare(files, settings, stop)
    given_up: dict[str, Skip] = {}
    crashes: Counter[str] = Counter()
    while jobs:
        run = _start(jobs, settings, stop)
        if run.links is not None:
            units = [unit for result in run.results for unit in result.units]
            skips += [result.skip for result in run.results if result.skip]
            return ParsedRepo(
                units=tuple(_link(unit, run.links) for unit in units),
                skips=tuple(sorted([*skips, *given_up.values()], key=lambda skip: (skip.path, skip.reason))),
            )
        path = _path_to_blame(run, jobs, settings)
        crashes[path] += 1
        skip = _skip_for(run, path, crashes[path])
        if skip is not None:
            given_up[path] = skip
            jobs = [
                replace(job, facts=replace(job.facts, is_code=False)) if job.facts.path == path else job for job in jobs
            ]
        if len(crashes) > MAX_CRASHING_FILES or crashes[path] > 2:
            raise Unparsable(
                f"the parser crashed on {len(crashes)} file(s) ({', '.join(sorted(crashes))}; last: {run.cause}), so "
                "this repository cannot be indexed: check the installation of tree-sitter, or leave these files out"
            )
    return ParsedRepo(units=(), skips=tuple(skips))


def _prepare(files: Sequence[SourceFile], settings: ParseSettings, stop: Stop) -> tuple[list[Job], list[Skip]]:
    """What the child gets, sorted by path, secrets taken out; and files whose path would make ids ambiguous."""
    jobs, skips = [], []
    for file in sorted(files, key=lambda file: file.path):
        stop.check()
        if _ID_SEPARATOR in file.path:
            skips.append(Skip(file.path, SkipReason.BAD_NAME, f"`{_ID_SEPARATOR}` stands between path and name in ids"))
            continue
        is_opaque = classify.not_read_as_code(file.path, file.data) is not None
        facts = FileFacts(
            path=file.path,
            language=classify.language_of(file.path, file.data),
            is_opaque=is_opaque,
            is_test=classify.is_test_path(file.path),
            is_secondary=is_opaque or classify.is_secondary_path(file.path),
        )
        data, redacted = redact(file) if settings.redact else (file.data, None)
        jobs.append(Job(facts, data))
        if redacted:
            skips.append(redacted)
    return jobs, skips


def _start(jobs: Sequence[Job], settings: ParseSettings, stop: Stop) -> Run:
    try:
        run = run_child(jobs, settings, stop)
    except OSError as error:
        raise ParseError(
            f"no parsing process can be started ({error}), so nothing can be parsed: free memory or processes"
        ) from None
    if not run.was_ready:
        raise ParseError(
            f"the parsing process does not start ({run.cause}), so nothing can be parsed: "
            "check that summidx and tree-sitter are installed for this Python, and parsing.memory_mb"
        )
    return run


def _path_to_blame(run: Run, jobs: Sequence[Job], settings: ParseSettings) -> str:
    """The file that a process died on, if it is the file's doing.

    Raises:
        Unparsable: the process ran out of memory.
        ParseError: it was killed from outside, or was past all files.
    """
    path = jobs[len(run.results)].facts.path if len(run.results) < len(jobs) else ""
    where = f"at {path}" if path else "while it resolved calls"
    if run.ran_out_of_memory:
        raise Unparsable(
            f"the parser ran out of memory {where} ({settings.memory_mb} MiB), so this repository cannot be indexed: "
            "raise parsing.memory_mb, or lower sources.max_file_bytes"
        )
    if not path or run.exit_code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP):
        raise ParseError(
            f"the parsing process ended {where} ({run.cause}), so this repository is not indexed: run it again; "
            "if the machine was out of memory, with fewer repositories at once"
        )
    return path


def _skip_for(run: Run, path: str, n_crashes: int) -> Skip | None:
    """The skip that says why a file is given up, or None: then it gets a second chance."""
    if run.exit_code == -signal.SIGXCPU:
        return Skip(path, SkipReason.PARSE_BUDGET, "its CPU time was used up (parsing.cpu_s_per_file)")
    return Skip(path, SkipReason.UNPARSABLE, f"the parser crashed on it: {run.cause}") if n_crashes > 1 else None


def _link(unit: Unit, links: Links) -> Unit:
    calls, called_by = links.calls.get(unit.id, ()), links.called_by.get(unit.id, ())
    imports = links.imports.get(unit.id, ())
    if not (calls or called_by or imports):
        return unit
    return replace(unit, calls=calls, called_by=called_by, imports=imports)
