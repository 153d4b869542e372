"""Two cold builds are equal row for row, whatever ran them: how many processes and threads, and in which order."""

from pathlib import Path

import lancedb
import numpy as np
import pytest

SHARED = '''def clean_{n}(text, *, limit=80):
    """Text without white space runs."""
    words = text.split()
    if len(words) > limit:
        words = words[:limit]
    return " ".join(words)
'''
CALLER = '''"""Reports."""

from .shared import clean_0


class Report:
    """A report of {name}."""

    def __init__(self, title):
        self.title = clean_0(title)

    def render(self, rows):
        """The report as text."""
        lines = [self.title]
        for row in rows:
            lines.append(self.line(row))
        return "\\n".join(lines)

    def line(self, row):
        """One row of it."""
        if not row:
            return clean_0("{name}")
        return clean_0(row)


def print_all(reports):
    """Print every report."""
    for report in reports:
        print(report.render([]))
        print(clean_0(report.title))
'''


@pytest.fixture
def projects(make_repo, tmp_path):
    """Three repositories that share functions with each other, and have equal ones within; callers across files."""
    shared = "\n\n".join(SHARED.format(n=n) for n in range(12))
    for name in ("ant", "bee", "cat"):
        files = {
            "README.md": f"# {name}\n\nReports of {name}.\n",
            f"{name}/__init__.py": "",
            f"{name}/shared.py": shared,
            f"{name}/report.py": CALLER.format(name=name),
            f"{name}/copy.py": CALLER.format(name=name),
            "tools/shared.py": shared,
            "tests/test_report.py": f"from {name}.report import Report\n\n\ndef test_it():\n    assert Report('a')\n",
        }
        make_repo(tmp_path / "projects" / name, files)
    return tmp_path / "projects"


def read_rows(index: Path):
    """Every row of every index, all columns; and, apart, the vectors."""
    rows, vectors = {}, {}
    for name in ("ant", "bee", "cat"):
        (folder,) = (index / name / "generations").iterdir()
        with_vectors = lancedb.connect(folder).open_table("documents").to_arrow().to_pylist()
        assert with_vectors
        for row in with_vectors:
            vectors[name, row["id"]] = np.asarray(row.pop("vector"), np.float32)
            rows[name, row["id"]] = row
    return rows, vectors


def test_cold_builds_are_equal_whatever_ran_them(build, fake_llm, projects):
    runs = [
        ("one", 1, 1, ("ant", "bee", "cat")),
        ("wide", 1, 4, ("bee", "cat", "ant")),
        ("three", 3, 2, ("cat", "bee", "ant")),
    ]
    built, asked = [], []
    for run, processes, threads, order in runs:
        fake_llm.reset()
        fake_llm.delay_s = 0.0 if run == "one" else 0.02  # answers then come in another order
        build.options = ("--embedding-model", "hashing", "--index-root", run)
        build.extra_env["SUMMIDX_CLUSTER__THREADS_PER_WORKER"] = str(threads)
        report = build.report(
            *(argument for name in order for argument in ("--repo", projects / name)),
            *("--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url),
            *("--num-processes", processes),
        )
        assert (report["built"], report["totals"]["requests"]) == (3, fake_llm.calls)
        built.append(read_rows(build.cwd / run))
        asked.append(fake_llm.prompts)

    rows, vectors = built[0]
    assert len({row["summary"] for row in rows.values()}) > 40
    for other_rows, other_vectors in built[1:]:
        assert list(other_rows) == list(rows)
        assert other_rows == rows
        assert all(np.array_equal(other_vectors[key], vector) for key, vector in vectors.items())
    assert all(prompts == asked[0] for prompts in asked)
    assert set(asked[0].values()) == {1}, "an equal question was asked twice"
