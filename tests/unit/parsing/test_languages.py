"""What units each language's code has, on a fixture of its usual constructs, and what holds for all languages."""

import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from summidx.parsing.budget import Budget
from summidx.parsing.languages import load_language, resolve_calls
from summidx.parsing.links import ParsedFile
from summidx.parsing.text import split_lines
from summidx.parsing.units import FileFacts, build_units
from summidx.records import Level, ParsedRepo, SkipReason, Unit
from summidx.settings import ParseSettings

FIXTURES = Path(__file__).with_name("fixtures")
LANGUAGES = ["javascript", "typescript", "java", "go", "rust", "c", "cpp", "csharp", "ruby", "php"]
SUFFIXES = {"javascript": "js", "typescript": "ts", "rust": "rs", "csharp": "cs", "ruby": "rb"}

Read = Callable[..., ParsedRepo]


def fixture_of(language: str) -> tuple[str, str]:
    """(path, text) of a language's fixture."""
    (file,) = FIXTURES.glob(f"{language}.*.txt")
    return f"a/{file.stem}", file.read_text(encoding="utf-8")


def units_of(language: str, path: str, text: str) -> list[Unit]:
    module = load_language(language)
    assert module is not None
    return build_units(FileFacts(path, language), split_lines(text), module.analyse(text, Budget(), path))


def path_of(language: str, stem: str = "a") -> str:
    return f"{stem}.{SUFFIXES.get(language, language)}"


def render_units(language: str) -> str:
    """What a fixture's golden file holds: a line for each unit, and its calls, docstring and gloss below it."""
    path, text = fixture_of(language)
    module = load_language(language)
    assert module is not None
    syntax = module.analyse(text, Budget(), path)
    units = build_units(FileFacts(path, language), split_lines(text), syntax)
    links = resolve_calls([ParsedFile(path, language, syntax, [unit.id for unit in units[1:]])])
    lines = []
    for unit in units:
        spans = ",".join(f"{first}-{last}" for first, last in unit.own_spans)
        marks = f"{' trivial' if unit.trivial else ''}{' test' if unit.is_test else ''}"
        name = unit.id.removeprefix(f"{path}::")
        lines.append(
            f"{name} | {unit.level} {unit.start_line}-{unit.end_line} own {spans} code {unit.code_lines}{marks}"
        )
        if unit.signature:
            lines.append(f"    {unit.signature}")
        if unit.docstring:
            lines.append("    doc: " + unit.docstring.replace("\n", " / "))
        if unit.gloss:
            lines.append(f"    gloss: {unit.gloss}")
        calls = [each.removeprefix(f"{path}::") for each in links.calls.get(unit.id, ())]
        if calls:
            lines.append(f"    calls: {', '.join(calls)}")
    lines.append(f"imports: {', '.join(links.imports[path])}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_fixture_gives_exactly_the_units_of_its_golden_file(language: str) -> None:
    """After a change that is meant, write them anew: `python test_languages.py` in this folder, and read the diff."""
    golden = (FIXTURES / f"{language}.units").read_text(encoding="utf-8")
    assert render_units(language) == golden


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_line_belongs_to_exactly_one_unit_and_ids_are_unique(language: str) -> None:
    path, text = fixture_of(language)
    units = units_of(language, path, text)
    owned = sorted(n for unit in units for first, last in unit.own_spans for n in range(first, last + 1))
    assert owned == list(range(1, len(split_lines(text)) + 1))
    assert len({unit.id for unit in units}) == len(units)
    ids = {unit.id for unit in units}
    assert all(unit.parent_id in ids for unit in units[1:])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_broken_file_still_gives_each_line_one_owner(language: str) -> None:
    """Cut anywhere, with lines lost and brackets doubled: as files are while people work on them."""
    path, text = fixture_of(language)
    lines = split_lines(text)
    chosen = random.Random(language)
    for _ in range(12):
        start = chosen.randrange(len(lines))
        broken = lines[: start + chosen.randrange(20)] + lines[start + chosen.randrange(1, 9) :]
        broken.insert(chosen.randrange(len(broken)), chosen.choice("{}()[];\"'"))
        units = units_of(language, path, "\n".join(broken))
        owned = sorted(n for unit in units for first, last in unit.own_spans for n in range(first, last + 1))
        assert owned == list(range(1, len(broken) + 1))
        assert len({unit.id for unit in units}) == len(units)


def test_deep_nesting_costs_nothing_else(read: Read) -> None:
    """100,000 levels in each language, in one process: no crash, and the files beside them are read."""
    openers = {"ruby": "x = ", "php": "<?php $x = ", "go": "package a\nvar x = ", "rust": "static X: u8 = "}
    files = {path_of(language): fixture_of(language)[1] for language in LANGUAGES}
    for language in LANGUAGES:
        opener = openers.get(language, "int x = ")
        files[path_of(language, "deep")] = opener + "(" * 100_000 + "1" + ")" * 100_000 + ";\n"
    repo = read(files, ParseSettings(cpu_s_per_file=20))
    assert {unit.path for unit in repo.units if unit.level is Level.FUNCTION} >= set(map(path_of, LANGUAGES))
    assert {unit.id for unit in repo.units} >= files.keys()
    assert not [skip for skip in repo.skips if "crashed" in skip.detail]


def test_a_megabyte_of_random_bytes_stays_within_the_budget(read: Read) -> None:
    noise = random.Random(1).randbytes(1_000_000)
    files: dict[str, str | bytes] = {path_of(language): fixture_of(language)[1] for language in LANGUAGES}
    files |= {path_of(language, "noise"): noise for language in LANGUAGES}
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    repo = read(files, ParseSettings(cpu_s_per_file=0.5))
    after_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert {unit.path for unit in repo.units if unit.level is Level.FUNCTION} >= set(map(path_of, LANGUAGES))
    skips = {skip.path: skip.reason for skip in repo.skips if skip.path.startswith("noise")}
    assert set(skips.values()) <= {SkipReason.PARSE_BUDGET, SkipReason.UNPARSABLE}
    assert {unit.path for unit in repo.units if unit.path.startswith("noise")} >= skips.keys()
    # Each file half a second, and what the process needs besides.
    assert after_s.ru_utime - before_s.ru_utime < 0.5 * len(LANGUAGES) + 8


if __name__ == "__main__":
    for each in LANGUAGES:
        (FIXTURES / f"{each}.units").write_text(render_units(each), encoding="utf-8")
