"""Reading plain folders: what is a file is read, what is not is named, and nothing leads out, blocks or runs away."""

import os
import random
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from summidx.errors import SourceError, Stopped
from summidx.records import RepoRef, SkipReason
from summidx.settings import SourceSettings
from summidx.sources import parse_spec, read_source, resolve
from summidx.stop import Stop

SETTINGS = SourceSettings()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plain"
    path.mkdir()
    return path


def write(folder: Path, *names: str, content: str = "x = 1\n") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def paths(content):
    return [file.path for file in content.files]


def skipped(content):
    return {skip.path: skip.reason for skip in content.skips}


class TestTraps:
    def test_special_files_are_named_and_never_opened(self, folder, read, monkeypatch):
        write(folder, "a.py")
        os.mkfifo(folder / "fifo.py")
        os.mkfifo(folder / ".gitignore")  # whoever opens it waits for ever
        monkeypatch.chdir(folder)  # a socket's path may have 107 characters
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.py")
            content = read(folder)
        assert paths(content) == ["a.py"]
        assert skipped(content) == dict.fromkeys((".gitignore", "fifo.py", "socket.py"), SkipReason.SPECIAL_FILE)

    def test_symlinks_are_never_followed(self, folder, tmp_path, read):
        write(tmp_path, "outside/secret.py")
        write(folder, "a.py")
        (folder / "file.py").symlink_to(tmp_path / "outside/secret.py")
        (folder / "dir").symlink_to(tmp_path / "outside")
        (folder / "loop").symlink_to(".")
        (folder / "dangling").symlink_to("nowhere")
        (folder / "sub").mkdir()
        (folder / "sub/.gitignore").symlink_to(tmp_path / "outside/secret.py")

        content = read(folder)

        assert paths(content) == ["a.py"]
        names = ("dangling", "dir", "file.py", "loop", "sub/.gitignore")
        assert skipped(content) == dict.fromkeys(names, SkipReason.SYMLINK)

    def test_the_folder_itself_may_be_named_through_a_symlink(self, folder, tmp_path, read):
        write(folder, "a.py")
        (tmp_path / "link").symlink_to(folder)
        assert read(tmp_path / "link") == read(folder)

    def test_a_file_that_claims_a_tebibyte_is_skipped_without_reading(self, folder, read):
        with (folder / "sparse.py").open("wb") as file:
            file.truncate(1 << 40)
        content = read(folder)
        assert skipped(content) == {"sparse.py": SkipReason.TOO_LARGE}
        assert content.skips[0].detail == f"{1 << 40} bytes"

    def test_names_that_cannot_be_stored_are_skipped_with_a_printable_path(self, folder, read):
        for name in (
            b"latin-\xe9.py",
            b"new\nline.py",
            b"esc\x1b[31m.py",
            "bidi-\u202e.py".encode(),
            b"fine \xc3\xa9.py",
        ):
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x = 1\n")
        bad = folder / os.fsdecode(b"dir\xff")
        write(bad, "inside.py")

        content = read(folder)

        assert paths(content) == ["fine é.py"]
        names = (r"latin-\xe9.py", r"new\nline.py", r"esc\x1b[31m.py", r"bidi-\u202e.py", r"dir\xff/inside.py")
        assert skipped(content) == dict.fromkeys(names, SkipReason.BAD_NAME)
        for skip in content.skips:
            assert skip.path.isprintable()
            skip.path.encode()

    def test_folders_past_the_depth_limit_are_recorded(self, folder, read):
        write(folder, "a.py", "d/" * 100 + "deep.py")
        assert skipped(read(folder)) == {"d/" * 61: SkipReason.TOO_DEEP}
        assert paths(read(folder, max_depth=100)) == ["a.py", "d/" * 100 + "deep.py"]

    def test_paths_longer_than_the_system_takes_are_not_lost_without_a_word(self, folder, read):
        """os.walk stops silently there: 4096 bytes are the most that one system call takes."""
        name = "n" * 200
        fd = os.open(folder, os.O_RDONLY)
        for _ in range(30):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(os.open("a.py", os.O_CREAT | os.O_WRONLY, dir_fd=below))
            os.close(fd)
            fd = below
        os.close(fd)
        content = read(folder)
        assert len(content.files) + len(content.skips) == 30
        assert len(content.files) == 4096 // 201
        assert {skip.reason for skip in content.skips} == {SkipReason.BAD_NAME}

    def test_what_may_not_be_read_is_recorded(self, request, read):
        folder = Path(tempfile.mkdtemp())  # tmp_path is closed to other users
        request.addfinalizer(lambda: shutil.rmtree(folder))
        folder.chmod(0o755)
        write(folder, "a.py", "closed.py", "shut/inside.py")
        (folder / "closed.py").chmod(0)
        (folder / "shut").chmod(0)
        request.getfixturevalue("as_nobody")

        content = read(folder)

        assert paths(content) == ["a.py"]
        assert skipped(content) == dict.fromkeys(("closed.py", "shut/"), SkipReason.UNREADABLE)
        with pytest.raises(SourceError, match=r"Permission denied.*check that it is a folder"):
            read(folder / "shut")

    def test_too_few_descriptors_are_an_error_not_a_smaller_index(self, folder):
        import resource

        write(folder, "d/" * 40 + "a.py")
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
        try:
            with pytest.raises(SourceError, match="ulimit"):
                resolve(parse_spec(str(folder)), SETTINGS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == used, "descriptors are given back"


class TestLimits:
    def test_more_files_or_bytes_than_allowed_are_refused(self, folder, read):
        write(folder, "a.py", "b.py", "c/d.py")
        assert len(read(folder, max_files=3, max_total_bytes=18).files) == 3
        with pytest.raises(SourceError, match="max_files"):
            read(folder, max_files=2)
        with pytest.raises(SourceError, match="max_total_bytes"):
            read(folder, max_total_bytes=17)

    def test_folders_without_files_are_counted_too(self, folder, read):
        for i in range(10):
            (folder / str(i)).mkdir()
        assert read(folder, max_files=10).files == ()
        with pytest.raises(SourceError, match="more than 9 folders"):
            read(folder, max_files=9)

    def test_a_stop_ends_it(self, folder):
        write(folder, "a.py")
        stop = Stop()
        stop.request("enough")
        with pytest.raises(Stopped, match="enough"):
            resolve(parse_spec(str(folder)), SETTINGS, stop)
        with pytest.raises(Stopped, match="enough"):
            read_source(str(folder), "", SETTINGS, stop)


class TestFingerprint:
    def tree(self, folder: Path, **settings: int) -> str:
        return resolve(parse_spec(str(folder)), SourceSettings(**settings)).tree

    def test_it_is_that_of_what_is_read_and_of_nothing_else(self, folder, tmp_path):
        write(folder, "a.py", "b/c.py")
        before = self.tree(folder)
        copy = tmp_path / "elsewhere"
        shutil.copytree(folder, copy)
        os.utime(copy / "a.py", (1, 1))
        write(copy, "node_modules/x.js", "__pycache__/a.pyc", ".git-not/../.hg/store")
        shutil.rmtree(copy / ".git-not")
        (copy / "empty").mkdir()
        assert self.tree(copy) == before

    @pytest.mark.parametrize("change", ["content", "name", "new file", "new binary", "gone", "moved"])
    def test_every_change_that_an_index_would_show_changes_it(self, folder, change):
        write(folder, "a.py", "b/c.py")
        before = self.tree(folder)
        match change:
            case "content":
                write(folder, "a.py", content="x = 2\n")
            case "name":
                (folder / "a.py").rename(folder / "z.py")
            case "new file":
                write(folder, "b/d.py")
            case "new binary":
                (folder / "image").write_bytes(b"\0")
            case "gone":
                (folder / "a.py").unlink()
            case "moved":
                (folder / "b").rename(folder / "d")
        assert self.tree(folder) != before

    def test_a_change_after_planning_shows_in_the_tree_of_what_was_read(self, folder):
        write(folder, "a.py")
        planned = resolve(parse_spec(str(folder)), SETTINGS)
        write(folder, "a.py", content="x = 2\n")
        content = read_source(str(folder), planned.commit, SETTINGS, Stop())
        assert content.tree != planned.tree
        assert content.tree == self.tree(folder)

    def test_kind_commit_and_size(self, folder):
        write(folder, "a.py", "b.py")
        (folder / "image").write_bytes(b"\0" * 500)
        resolved = resolve(parse_spec(str(folder)), SETTINGS)
        assert (resolved.kind, resolved.commit, resolved.size_bytes) == ("folder", "", 12)


class TestKind:
    def test_a_plain_folder_has_no_revisions(self, folder):
        write(folder, "a.py")
        with pytest.raises(SourceError, match=r"plain folder.*leave out @v1"):
            resolve(RepoRef("x", str(folder), "v1"), SETTINGS)

    def test_a_git_repository_is_never_read_as_a_folder(self, folder, git):
        write(folder, "a.py")
        planned = resolve(parse_spec(str(folder)), SETTINGS)
        git(folder, "init", "-q")
        with pytest.raises(SourceError, match="has become a git repository"):
            read_source(str(folder), planned.commit, SETTINGS, Stop())


class TestIgnored:
    def test_gitignore_files_count_at_every_depth(self, folder, read):
        write(
            folder,
            "keep.log",
            "a.log",
            "sub/b.log",
            "sub/c.log",
            "sub/d.txt",
            "build/x.py",
            "src/build/y.py",
            "src/z.tmp",
        )
        write(folder, ".gitignore", content="*.log\n!keep.log\n/build/\n")
        write(folder, "sub/.gitignore", content="!b.log\n*.txt\n# comment\n\n")
        write(folder, "src/.gitignore", content="*.tmp")
        names = [".gitignore", "keep.log", "src/.gitignore", "src/build/y.py", "sub/.gitignore", "sub/b.log"]
        assert paths(read(folder)) == names

    def test_what_is_never_source_is_left_out_without_a_word(self, folder, read):
        write(folder, "a.py", ".hidden/b.py", "venv.py", "environment/lib/c.py", "environment/pyvenv.cfg")
        for name in ("sub/.git", ".hg", ".venv", "sub/node_modules", "__pycache__"):
            write(folder, f"{name}/x.py")
        content = read(folder)
        assert paths(content) == [".hidden/b.py", "a.py", "venv.py"]
        assert content.skips == ()

    @pytest.mark.parametrize("seed", range(20))
    def test_it_ignores_exactly_what_git_ignores(self, folder, tmp_path, git, read, seed):
        """Random trees and patterns; git itself lists what is not ignored, its repository lying elsewhere."""
        chance = random.Random(seed)
        names = ["a", "b", "ab", "a.py", "b.py", "a.b.py", "c d", "aab", ".x", "[a]", "A", "é.py"]
        parts = "a b * ** ? a* *.py [ab] [!a]* *a*b* a*b .x *.* A \\[a\\]".split()  # noqa: SIM905
        for _ in range(60):
            path = folder.joinpath(
                *[f"{chance.choice(names)}_" for _ in range(chance.randrange(4))], chance.choice(names)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x\n")
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in chance.sample(folders, min(5, len(folders))):
            lines = []
            for _ in range(chance.randrange(1, 6)):
                steps = [chance.choice(parts) + chance.choice(["", "", "_"]) for _ in range(chance.randrange(1, 4))]
                lines.append(
                    chance.choice(["", "", "", "!"])
                    + chance.choice(["", "/"])
                    + "/".join(steps)
                    + chance.choice(["", "/"])
                )
            (place / ".gitignore").write_text("\n".join(lines) + "\n")
        git(tmp_path, "init", "-q", "--bare", "elsewhere")

        listed = git(
            folder, f"--git-dir={tmp_path}/elsewhere", f"--work-tree={folder}", "ls-files", "-oz", "--exclude-standard"
        )

        assert paths(read(folder)) == sorted(listed.split("\0")[:-1])

    def test_patterns_that_would_take_for_ever_do_not(self, folder, read):
        """As regular expressions they backtrack exponentially: 2^30 steps for the first alone."""
        write(folder, "a" * 200, "a/" * 50 + "b.py")
        write(folder, ".gitignore", content="a*" * 30 + "b\n" + "**/a/" * 30 + "c\n" + "*.log\n")
        write(folder, "x.log")
        content = read(folder)
        assert len(content.files) == 3
        assert [(skip.path, skip.reason) for skip in content.skips] == [(".gitignore", SkipReason.UNREADABLE)]
        assert "1 patterns not applied" in content.skips[0].detail

    def test_an_ignore_file_of_any_bytes_is_survived(self, folder, read):
        (folder / ".gitignore").write_bytes(b"\xef\xbb\xbf*.log\r\n!\n\\\n[\n//\n\xff\xfe*\n***\x00\n" + b"x" * 5000)
        write(folder, "a.py", "a.log")
        assert "a.log" not in paths(read(folder))
        assert "a.py" in paths(read(folder))
