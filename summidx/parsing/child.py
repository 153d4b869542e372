"""The parsing process of one repository: reads files from standard input, writes units to standard output.

It limits itself before it reads a byte, since what it reads is not trusted: memory, CPU time per file, no core dump.
"""

import contextlib
import os
import resource
import signal
import sys
from typing import BinaryIO

from summidx.parsing.budget import Budget, OverBudget
from summidx.parsing.languages import load_language, resolve_calls
from summidx.parsing.links import ParsedFile
from summidx.parsing.plain import read_plain
from summidx.parsing.syntax import Syntax
from summidx.parsing.text import decode, split_lines
from summidx.parsing.units import FileFacts, build_plain_unit, build_units
from summidx.parsing.wire import OUT_OF_MEMORY, READY, decode_file, encode_links, encode_result
from summidx.records import Skip, SkipReason, Unit

MAX_ERROR_SHARE = 0.5
"""A file without a definition that is no program for so much of it is not read as code."""
_MAX_HEADER_BYTES = 1_000_000


def main(cpu_s_per_file: float, memory_mb: int) -> None:
    """Serve one repository, then end. The process ends at once, without output, when the parent is gone."""
    limit_process(memory_mb)
    # Whatever prints must not reach the parent as data.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, output, cpu_s_per_file)
        output.close()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:
        os._exit(1)


def limit_process(memory_mb: int) -> None:
    """Set the limits of this process. Lower ones that it was started with stand."""
    # The parent decides when a run ends, and kills this process then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits = {resource.RLIMIT_AS: memory_mb * 1024 * 1024, resource.RLIMIT_CORE: 0}
    for kind, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def serve(files: BinaryIO, output: BinaryIO, cpu_s_per_file: float) -> None:
    """Answer each file with its units, in order; after the last, write the links between them."""
    output.write(READY)
    output.flush()
    parsed: list[ParsedFile] = []
    while line := files.readline(_MAX_HEADER_BYTES):
        facts, size_bytes = decode_file(line)
        data = files.read(size_bytes)
        if len(data) != size_bytes:
            return
        budget = Budget(cpu_s_per_file)
        budget.arm()
        units, syntax, skip = read_file(facts, data, budget)
        output.write(encode_result(units, skip))
        output.flush()
        if syntax is not None:
            ids = [unit.id for unit in units[1:]]
            parsed.append(ParsedFile(facts.path, facts.language, syntax, ids, facts.is_test))
    # Work for each call is bounded; this only keeps a repository that was made for it from taking for ever.
    Budget(cpu_s_per_file * (1 + len(parsed) / 100)).arm()
    output.write(encode_links(resolve_calls(parsed)))
    output.flush()


def read_file(facts: FileFacts, data: bytes, budget: Budget) -> tuple[list[Unit], Syntax | None, Skip | None]:
    """Units of one file; its syntax, where it was read as code; and why not, where it should have been."""
    language = load_language(facts.language) if facts.is_code and not facts.is_opaque else None
    text = decode(data, declared=language is not None)
    lines = split_lines(text)
    skip = None
    if language is not None:
        try:
            syntax = language.analyse(text, budget, facts.path)
            if syntax.definitions or syntax.error_share < MAX_ERROR_SHARE:
                return build_units(facts, lines, syntax), syntax, None
            skip = Skip(
                facts.path, SkipReason.UNPARSABLE, f"syntax errors all over, and no definition: no {facts.language}?"
            )
        except OverBudget:
            skip = Skip(facts.path, SkipReason.PARSE_BUDGET, "its CPU time was used up (parsing.cpu_s_per_file)")
    plain = read_plain(facts.path, facts.language, text)
    if plain.problem and skip is None:
        skip = Skip(facts.path, SkipReason.UNPARSABLE, plain.problem)
    return [build_plain_unit(facts, plain, len(lines))], None, skip
