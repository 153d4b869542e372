"""The wiki: read by a parser of Markdown that is not ours, every link followed."""

import json
import posixpath
import re
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from summidx.export.wiki import iterate_pages
from summidx.records import Level, Status

HOSTILE = (
    "evil](http://evil.example) <script>alert(1)</script> `code` **bold** | cell | ![x](http://evil/x.png)\n"
    "# heading\n- [ ] task\n\n    indented\x1b[31m \u202e &amp; $x$ @someone https://evil.example www.evil.example ~~~"
)
PATHS = ["../../up.py", ".git/config", "a](b).py", "line\nend/x.py", "<b>/y.py", "README", "src/http/adapters.py"]


def parse(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def walk(tokens):
    for token in tokens:
        yield token
        yield from walk(token.children or ())


def links(text):
    return [token.attrs["href"] for token in walk(parse(text)) if token.type == "link_open"]


def anchors(text):
    return re.findall(r'^<a id="([^"]*)"></a>$', text, re.MULTILINE)


def check_links(pages):
    """Every link leads to a page that is there, and to an anchor on it."""
    found = 0
    for page, text in pages.items():
        for link in links(text):
            target, _, anchor = link.partition("#")
            at = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(target))) if target else page
            assert at in pages, f"{page}: {link}"
            assert not anchor or unquote(anchor) in anchors(pages[at]), f"{page}: {link}"
            found += 1
    return found


@pytest.fixture
def wiki(root, publish_documents):
    def build(documents, **values):
        publish_documents("x/y", documents, **values)
        return dict(iterate_pages(root.open("x/y")))

    return build


def test_there_is_a_page_for_each_directory_and_file_and_every_link_resolves(wiki, corpus):
    pages = wiki(corpus(), settings={"levels": [level.value for level in Level]})
    assert set(pages) == {
        *("README.md", "INDEX.md", "src/http/README.md", "src/http/adapters.py.md", "src/http/cookies.py.md"),
        *("docs/guide.md.md", "tests/test_adapters.py.md"),
    }
    assert check_links(pages) > 20
    assert "[src/http/](src/http/README.md) | The library\\. |".replace("\\", "") in pages["README.md"]
    assert "[x/y](../../README.md) / [src/http/](README.md) / adapters.py" in pages["src/http/adapters.py.md"]
    assert "> **failed:** Overloaded\\: 429" in pages["src/http/cookies.py.md"]


def test_a_function_links_to_what_it_calls_and_is_called_by_on_other_pages(wiki, corpus_document):
    documents = [
        corpus_document("src/a.py", "A."),
        corpus_document("src/a.py::f", "F.", calls=("lib/b.py::B.g", "lib/b.py::B", "gone.py::h")),
        corpus_document("lib/b.py", "B."),
        corpus_document("lib/b.py::B", "B.", level=Level.CLASS),
        corpus_document("lib/b.py::B.g", "G.", called_by=("src/a.py::f",)),
    ]
    pages = wiki(documents)
    assert "../lib/b.py.md#B.g" in links(pages["src/a.py.md"])
    assert "../src/a.py.md#f" in links(pages["lib/b.py.md"])
    assert "gone.py\\:\\:h" in pages["src/a.py.md"]
    check_links(pages)
    assert re.findall(r"^(#+ .*)$", pages["lib/b.py.md"], re.MULTILINE) == [
        "# lib/b.py",
        "## class B",
        "### function B.g",
    ]


def test_nothing_of_an_index_is_markup_html_or_a_link(wiki, corpus_document):
    documents = [
        corpus_document(
            path,
            HOSTILE,
            reason=HOSTILE,
            status=Status.DEGRADED,
            keywords=(HOSTILE,),
            imports=(HOSTILE,),
            signature=f"def f(): ```` {HOSTILE}",
            language=HOSTILE,
        )
        for path in PATHS
    ] + [
        corpus_document(f"{PATHS[0]}::{HOSTILE}", HOSTILE, calls=(f"{HOSTILE}::{HOSTILE}",), signature=HOSTILE),
    ]
    pages = wiki(documents, summarizer=HOSTILE, commit=HOSTILE)
    check_links(pages)
    for page, text in pages.items():
        assert not {"\x1b", "\u202e", "\x07"} & set(text)
        for token in walk(parse(text)):
            assert token.type not in ("image", "s_open", "code_block", "hr", "bullet_list_open") or (
                (page, token.type) == ("INDEX.md", "bullet_list_open")
            )
            if token.type in ("html_block", "html_inline"):
                assert re.fullmatch(r'<a id="[\w.-]+">|</a>', token.content), token.content
            assert token.type != "code_inline" or token.content == "code"
            if token.type == "fence":
                assert token.content.count("\n") == 1
            assert token.type != "link_open" or "evil" not in token.attrs["href"].partition(".md")[2]
        plain = " ".join(token.content for token in walk(parse(text)) if token.type == "text")
        if page == "%2E.%2F":
            assert "<script>alert(1)</script>" in plain


@pytest.mark.parametrize(
    "start", ["- item", "1. one", "12) x", "+ plus", "=== x", "--- ", "# x", "> x", "* x", "    x", "\tx"]
)
def test_a_summary_is_a_paragraph_however_it_begins(wiki, corpus_document, start):
    page = wiki([corpus_document("a.py", f"{start} and so on.")])["a.py.md"]
    kinds = [token.type for token in parse(page)]
    assert not {"bullet_list_open", "ordered_list_open", "hr", "blockquote_open", "code_block"} & set(kinds)
    assert kinds.count("heading_open") == 1
    assert f"{start.strip()} and so on." in " ".join(
        t.content for t in walk(parse(page)) if t.type == "inline"
    ).replace("\\", "")


def test_what_a_summary_has_in_single_backticks_is_code_and_nothing_else_is(wiki, corpus_document):
    summary = "Calls `run(*a, <b>)` if `a|b` and ``c`` or `d\\` then `[x](y)`, not `alone."
    pages = wiki([corpus_document("a.py", summary)])
    for page in ("a.py.md", "README.md"):
        tokens = list(walk(parse(pages[page])))
        assert [token.content for token in tokens if token.type == "code_inline"] == ["run(*a, <b>)", "[x](y)"]
        assert any(token.content.startswith(" if `a|b` and ``c`` or `d\\` then ") for token in tokens)


def test_files_without_a_document_have_their_page_where_the_levels_leave_them_out(wiki, corpus):
    documents = [each for each in corpus() if each.level in (Level.FUNCTION, Level.CLASS)]
    pages = wiki(documents, settings={"levels": ["function", "class"]})
    assert "Sends a prepared request" in pages["src/http/adapters.py.md"]
    assert "src/http/adapters.py.md" in links(pages["README.md"])
    check_links(pages)


def test_more_files_than_are_read_at_once_all_have_what_is_in_them(wiki, corpus_document, monkeypatch):
    monkeypatch.setattr("summidx.export.wiki.FILES_AT_ONCE", 3)
    n = 7
    documents = [
        each
        for number in range(n)
        for each in (corpus_document(f"{number}.py", "File."), corpus_document(f"{number}.py::f{number}", "Does."))
    ]
    pages = wiki(documents)
    assert len(pages) == n + 2
    assert all(f"## function f{number}\n" in pages[f"{number}.py.md"] for number in range(n))


def test_an_index_without_a_document_is_a_wiki_of_two_pages(wiki):
    pages = wiki([])
    assert set(pages) == {"README.md", "INDEX.md"}
    check_links(pages)


def test_the_repository_page_says_what_made_it(wiki, corpus):
    text = wiki(corpus())["README.md"]
    assert json.dumps("# x/y\n\nAn HTTP client.")[1:-1] in json.dumps(text)
    assert "| Commit | c1 |" in text
