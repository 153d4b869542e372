"""How users name repositories."""

import os
from pathlib import Path

import pytest

from summidx.errors import UsageError
from summidx.records import RepoRef
from summidx.sources import check_names, discover, find_unnamable, parse_spec


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("folder", "spec", "name", "revision"),
    [
        ("app", "app", "app", None),
        ("app", "app/", "app", None),
        ("app", "./x/../app", "app", None),
        ("app.git", "app.git", "app", None),
        ("app/.git", "app/.git", "app", None),
        ("app", "app@v1.0", "app@v1.0", "v1.0"),
        ("app.git", "app.git@feature/x", "app@feature/x", "feature/x"),
        ("app", "app@HEAD~2", "app@HEAD~2", "HEAD~2"),
        ("app", "mine=app", "mine", None),
        ("app", "mine=app@v1", "mine", "v1"),
        ("app", "psf/requests=app@v1", "psf/requests", "v1"),
        # a path that exists as written goes before splitting
        ("user@host", "user@host", "user@host", None),
        ("user@host", "user@host@v1", "user@host@v1", "v1"),
        ("a=b", "a=b", "a=b", None),
        ("a=b", "n=a=b", "n", None),
        ("a=b", "a=b@v1", "a=b@v1", "v1"),
        ("home/code", "~/code", "code", None),
        ("home/code", "n=~/code@v1", "n", "v1"),
    ],
)
def test_a_spec_is_read_as_its_writer_meant_it(tmp_path, folder, spec, name, revision):
    (tmp_path / folder).mkdir(parents=True)
    assert parse_spec(spec) == RepoRef(name, str(tmp_path / folder), revision)


def test_the_longest_path_that_exists_wins(tmp_path):
    (tmp_path / "app").mkdir()
    assert parse_spec("app@x@y").revision == "x@y"
    (tmp_path / "app@x").mkdir()
    assert parse_spec("app@x@y") == RepoRef("app@x@y", str(tmp_path / "app@x"), "y")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gone@v1", ("gone@v1", "gone", "v1")),
        ("n=gone", ("n", "gone", None)),
        ("/x=y/gone", ("gone", "/x=y/gone", None)),
    ],
)
def test_a_missing_folder_is_left_to_be_reported_with_the_others(tmp_path, spec, expected):
    ref = parse_spec(spec)
    assert (ref.name, ref.source, ref.revision) == (expected[0], str(tmp_path / expected[1]), expected[2])


@pytest.mark.parametrize(
    "spec", ["", " ", "=app", "n=", "app@", "@v1", "n=@v1", "a\nb=app", "app@v\n1", "app\x00", "\udcff=app"]
)
def test_what_cannot_be_a_name_a_path_or_a_revision_is_refused_in_one_line(tmp_path, spec):
    (tmp_path / "app").mkdir()
    with pytest.raises(UsageError, match=r"write \[NAME=\]PATH\[@REVISION\]") as caught:
        parse_spec(spec)
    assert "\n" not in str(caught.value)


class TestDiscover:
    def test_repositories_are_found_by_kind_and_sorted(self, tmp_path, git):
        for name in ("work", "bare.git"):
            git(tmp_path, "init", "-q", *(["--bare"] if "." in name else []), name)
        for name in ("plain/deep/x.py", ".hidden/x.py", "only-left-out/node_modules/x.js", "file.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x\n")
        (tmp_path / "empty/also-empty").mkdir(parents=True)
        (tmp_path / "link").symlink_to("plain")
        (tmp_path / "dangling").symlink_to("nowhere")
        found = discover(tmp_path)
        assert [ref.name for ref in found] == ["bare", "link", "plain", "work"]
        assert found[0] == RepoRef("bare", str(tmp_path / "bare.git"), None)

    def test_a_name_that_cannot_be_stored_costs_its_own_folder_only_and_is_shown(self, tmp_path):
        for name in (b"fine", b"new\nline", b"latin-\xe9"):
            folder = tmp_path / os.fsdecode(name)
            folder.mkdir()
            (folder / "x.py").write_text("x = 1\n")
        assert [ref.name for ref in discover(tmp_path)] == ["fine"]
        assert find_unnamable(tmp_path) == (rf"{tmp_path}/latin-\udce9", rf"{tmp_path}/new\nline")

    def test_a_root_without_repositories_gives_none_and_a_missing_root_is_refused(self, tmp_path):
        assert discover(tmp_path) == ()
        with pytest.raises(UsageError, match="No such file"):
            discover(tmp_path / "nowhere")


class TestCheckNames:
    def test_different_names_pass(self):
        check_names([RepoRef("a", "/x/a"), RepoRef("A", "/x/a"), RepoRef("a@v1", "/x/a", "v1")])

    def test_collisions_are_all_named_with_the_remedy(self):
        refs = [RepoRef("a", "/x/a"), RepoRef("b", "/x/b"), RepoRef("a", "/y/a", "v1"), RepoRef("b", "/x/b.git")]
        with pytest.raises(UsageError) as caught:
            check_names(refs)
        for part in ("a (/x/a, /y/a@v1)", "b (/x/b, /x/b.git)", "NAME=PATH"):
            assert part in str(caught.value)
