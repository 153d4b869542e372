"""The fixtures of all languages against Universal Ctags: the comparison of `benchmarks/ctags.py`, small."""

import shutil
import subprocess
from pathlib import Path

import pytest
from parts import require_part

from benchmarks.ctags import KINDS, Tag, compare, is_same
from summidx.parsing.budget import Budget
from summidx.parsing.languages.c import analyse

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "unit" / "parsing" / "fixtures"


@pytest.fixture(scope="module", autouse=True)
def ctags() -> None:
    found = shutil.which("ctags")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout if found else ""
    require_part("Universal Ctags", present="Universal" in said, how="apt-get install universal-ctags")


@pytest.mark.parametrize("language", sorted(KINDS))
def test_what_ctags_finds_in_the_fixture_is_found(language: str, tmp_path: Path) -> None:
    (fixture,) = FIXTURES.glob(f"{language}.*.txt")
    (tmp_path / fixture.stem).write_text(fixture.read_text(encoding="utf-8"), encoding="utf-8")
    result = compare(tmp_path, language)
    missed = [f"{tag.line} {tag.kind} {tag.name}" for tag in result.missed]
    assert (result.files, missed) == (1, [])
    assert result.matched > 8


def test_a_definition_is_another_one_two_lines_away_or_under_another_name() -> None:
    (found,) = analyse("\n\n\nint f(void) { return 1; }\n", Budget()).definitions
    lines = {line: is_same(found, Tag("a.c", "f", line, "function", "", "")) for line in range(1, 8)}
    assert [line for line, is_found in lines.items() if is_found] == [3, 4, 5]
    assert not is_same(found, Tag("a.c", "g", 4, "function", "", ""))
