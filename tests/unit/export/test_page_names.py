"""Where pages lie: inside, each path in a place of its own, on any file system, and reachable from the others."""

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.export.page_names import PageNames, anchor_of, link_between

HOSTILE = [
    *("../../etc/passwd", "/etc/passwd", "..", ".", "a/../../b", "a//b", "", "./x", "~/.ssh/config"),
    *(".git/config", ".github/README", "con", "aux.py", "NUL.txt", "trailing./x", "a\\..\\b", "C:\\x", "a:b"),
    *("line\nend.py", "\x1b[31mred.py", "nul\0.py", "](http:evil).py", "<script>.py", "100%.py", "a b?c#d.py"),
    *(
        "été/日本.py",
        "e\u0301te\u0301/x.py",
        "\u202egnp.exe",
        "x" * 300,
        "d/" * 60 + "f.py",
        ("l" * 110 + "/") * 20 + "f.py",
    ),
]


def is_safe(page):
    parts = page.split("/")
    return (
        all(part and part[0] != "." and len(part.encode()) <= 255 for part in parts)
        and len(page.encode()) <= 1000
        and not set(page) & set('\\:*?"<>|\n\0\x1b\u202e ')
        and page.endswith(".md")
    )


@pytest.mark.parametrize("path", HOSTILE)
def test_a_page_never_leaves_the_wiki_and_has_a_name_that_any_file_system_takes(path):
    for each in (path, f"{path}/"):
        assert is_safe(PageNames().page_of(each)), PageNames().page_of(each)


def test_pages_stand_where_the_paths_do():
    names = PageNames()
    assert names.page_of("") == "README.md"
    assert names.page_of("src/http/") == "src/http/README.md"
    assert names.page_of("src/http/adapters.py") == "src/http/adapters.py.md"
    assert names.page_of("README.md") == "README.md.md"
    assert names.page_of("README") == "%52EADME.md"
    assert names.page_of("INDEX") == "%49NDEX.md"
    assert names.page_of(".github/x.yml") == "%2Egithub/x.yml.md"
    assert names.page_of("日本/été.py") == "日本/été.py.md"


@given(st.lists(st.text(st.sampled_from("aAbB./~%é\u0301\u0130\u0131ß mdREADME\n"), max_size=12), unique=True))
def test_no_two_paths_share_a_page_where_letters_have_no_case(paths):
    names = PageNames()
    pages = [names.page_of(path) for path in paths if path]
    assert len({page.casefold() for page in pages}) == len(pages)
    assert all(map(is_safe, pages))


def test_a_folder_and_a_page_of_one_name_do_not_meet():
    names = PageNames()
    pages = [names.page_of(path) for path in ("x", "x.md/", "x.md/y.py", "Makefile", "makefile", "MAKEFILE/z.py")]
    files = {page.casefold() for page in pages}
    folders = {parent for page in pages if (parent := posixpath.dirname(page).casefold())}
    assert len(files) == len(pages)
    assert not files & folders


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize("start", ["README.md", "src/http/README.md", "src/x.py.md"])
def test_a_link_leads_to_the_page_and_is_one_word_of_a_url(start, path):
    page = PageNames().page_of(path)
    link = link_between(start, page)
    assert posixpath.normpath(posixpath.join(posixpath.dirname(start), unquote(link))) == page
    assert not set(link) & set(" ()<>[]\\\"'\n")


def test_anchors_are_names_where_they_can_be_and_differ_where_they_cannot():
    assert anchor_of("a.py", "a.py::A.f") == "A.f"
    odd = [anchor_of("a.py", f"a.py::{name}") for name in ("operator<", "operator>", "f@12", "日本", '"><script>')]
    assert len(set(odd)) == 5
    assert all(each.replace("-", "").replace("_", "").replace(".", "").isalnum() and each.isascii() for each in odd)
    assert link_between("a.md", "a.md", "A.f") == "#A.f"
