"""How fast files become units, by language, and what the parsing process needs of memory.

    python -m benchmarks.parse --language go=/path/to/gin [--json FILE]

The files are those that are read as code. They are parsed as in a build, in the limited child process and with the
search for credentials, and once more without it. MB/s are those of the CPU time of both processes, which is what a
machine under load keeps.
"""

import argparse
import json
import resource
import sys
from pathlib import Path

from benchmarks.ctags import files_of
from benchmarks.harness import start_result
from summidx.parsing import parse
from summidx.records import SourceFile
from summidx.settings import ParseSettings
from summidx.stop import Stop


def cpu_s() -> float:
    """CPU seconds of this process and of the children that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(root: Path, language: str) -> dict[str, object]:
    """Parse one language of one repository."""
    files = [SourceFile(path, (root / path).read_bytes()) for path in files_of(root, language)]
    size_mb = sum(len(file.data) for file in files) / 1e6
    parse(files[:1], ParseSettings(), Stop())  # rules of the scanner, grammars, pages of both
    figures: dict[str, object] = {
        "language": language,
        "repository": root.name.replace("+", "/"),
        "files": len(files),
        "mb": round(size_mb, 2),
    }
    for name, settings in (("", ParseSettings()), ("_without_redaction", ParseSettings(redact=False))):
        before_s = cpu_s()
        repo = parse(files, settings, Stop())
        spent_s = cpu_s() - before_s
        figures[f"mb_per_cpu_s{name}"] = round(size_mb / spent_s, 2)
        figures["units"] = len(repo.units)
    figures["largest_child_so_far_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3)
    return figures


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", action="append", required=True, metavar="LANGUAGE=FOLDER")
    parser.add_argument("--json", type=Path, help="file that the table is written to")
    options = parser.parse_args()
    rows = []
    for each in options.language:
        language, _, folder = each.partition("=")
        rows.append(measure(Path(folder), language))
        print(json.dumps(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps({**start_result("parse"), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
