"""What is exported is there as a whole, or what was there before is."""

import json
import os

import pytest

from summidx.errors import MachineFault, UsageError
from summidx.export.output import MARKER, replace_file, replace_folder

PAGES = [("README.md", b"top"), ("src/README.md", b"src"), ("src/a.py.md", b"a")]


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }


def test_a_folder_is_written_and_replaced_by_the_next_export(tmp_path):
    out = tmp_path / "deep" / "wiki"
    assert replace_folder(out, PAGES, {"name": "x"}) == (3, 7)
    assert tree(out) == dict(PAGES)
    replace_folder(out, PAGES[:1], {"name": "x"})
    assert tree(out) == {"README.md": b"top"}
    assert json.loads((out / MARKER).read_text())["index"] == {"name": "x"}
    assert [each.name for each in out.parent.iterdir()] == ["wiki"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "wiki").mkdir()
    replace_folder(tmp_path / "wiki", PAGES, {})
    assert tree(tmp_path / "wiki") == dict(PAGES)


@pytest.mark.parametrize("foreign", ["mine.txt", ".git/config", "src/notes.md"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, foreign):
    out = tmp_path / "wiki"
    replace_folder(out, PAGES, {})
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    with pytest.raises(UsageError, match=rf"is not replaced, since it holds '{foreign}'"):
        replace_folder(out, [("README.md", b"new")], {})
    assert tree(out) == {**dict(PAGES), foreign: b"mine"}


def test_a_folder_that_was_never_an_export_is_left_alone_whatever_its_marker_says(tmp_path):
    for marker in (None, "{", "[]", '{"format": 2, "made_by": "summidx export", "files": ["README.md"]}'):
        out = tmp_path / f"notes{len(marker or '')}"
        out.mkdir()
        (out / "README.md").write_text("mine")
        if marker:
            (out / MARKER).write_text(marker)
        with pytest.raises(UsageError, match="which no export wrote"):
            replace_folder(out, PAGES, {})
        assert (out / "README.md").read_text() == "mine"


def test_a_link_to_a_folder_that_somebody_put_there_is_not_ours(tmp_path):
    out = tmp_path / "wiki"
    replace_folder(out, PAGES, {})
    (tmp_path / "else").mkdir()
    (out / "link").symlink_to(tmp_path / "else")
    with pytest.raises(UsageError, match="'link'"):
        replace_folder(out, PAGES, {})


def test_an_export_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    def fail():
        yield "README.md", b"new"
        raise RuntimeError("the index is damaged")

    for out in (tmp_path / "wiki", tmp_path / "never"):
        if out.name == "wiki":
            replace_folder(out, PAGES, {})
        with pytest.raises(RuntimeError):
            replace_folder(out, fail(), {})
    assert tree(tmp_path / "wiki") == dict(PAGES)
    assert [each.name for each in tmp_path.iterdir()] == ["wiki"]


def test_where_the_new_folder_cannot_take_its_place_the_old_one_is_put_back(tmp_path, monkeypatch):
    from pathlib import Path

    out = tmp_path / "wiki"
    replace_folder(out, PAGES, {})
    rename = Path.rename

    def refuse(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(MachineFault, match=r"wiki cannot be written: No space left on device"):
        replace_folder(out, [("README.md", b"new")], {})
    assert tree(out) == dict(PAGES)


@pytest.mark.parametrize("page", ["../out.md", "/etc/x.md", "a/../../out.md"])
def test_a_page_that_would_lie_outside_is_refused(tmp_path, page):
    with pytest.raises(UsageError, match="outside of the output"):
        replace_folder(tmp_path / "deep" / "wiki", [(page, b"x")], {})
    assert not list(tmp_path.rglob("*.md"))


def test_a_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "deep" / "x.jsonl"
    with replace_file(file) as partial:
        partial.write_text("one")
    mask = os.umask(0)
    os.umask(mask)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("one", 0o666 & ~mask)
    with pytest.raises(ZeroDivisionError), replace_file(file) as partial:
        partial.write_text(str(1 / 0))
    assert file.read_text() == "one"
    assert [each.name for each in file.parent.iterdir()] == ["x.jsonl"]


def test_what_is_no_place_for_an_export_is_said_in_a_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for output in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is no regular file"), replace_file(output):
            pass
    with pytest.raises(UsageError, match="is no folder"):
        replace_folder(tmp_path / "file", PAGES, {})
    with pytest.raises(MachineFault, match="file/wiki cannot be written: "):
        replace_folder(tmp_path / "file" / "wiki", PAGES, {})
