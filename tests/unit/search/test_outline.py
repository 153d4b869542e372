import pytest

from summidx.errors import UsageError
from summidx.records import Level
from summidx.search.outline import build_outline, find_outline


def render(roots):
    return {root.document.id: render(root.children) for root in roots}


@pytest.fixture
def tree(corpus):
    return build_outline(corpus())


def test_every_document_hangs_under_the_innermost_that_holds_it(tree):
    assert render(tree) == {
        ".": {
            "src/http/": {
                "src/http/adapters.py": {
                    "src/http/adapters.py::HTTPAdapter": {
                        "src/http/adapters.py::HTTPAdapter.send": {},
                        "src/http/adapters.py::HTTPAdapter.handle_status": {},
                    }
                },
                "src/http/cookies.py": {"src/http/cookies.py::parse_cookie": {}},
            },
            "tests/test_adapters.py::test_handle_status": {},
            "docs/guide.md": {},
        }
    }


def test_levels_that_are_missing_are_passed_over(corpus):
    documents = [each for each in corpus() if each.level in (Level.FUNCTION, Level.DIRECTORY)]
    assert render(build_outline(documents)) == {
        "src/http/": {
            "src/http/adapters.py::HTTPAdapter.send": {},
            "src/http/adapters.py::HTTPAdapter.handle_status": {},
            "src/http/cookies.py::parse_cookie": {},
        },
        "tests/test_adapters.py::test_handle_status": {},
    }


def test_a_class_that_is_defined_twice_keeps_its_own_methods(document):
    outer = {"level": Level.CLASS, "qualified_name": "A"}
    inner = {"level": Level.FUNCTION, "qualified_name": "A.f"}
    documents = [
        document("a.py::A@1", start_line=1, end_line=9, **outer),
        document("a.py::A@20", start_line=20, end_line=29, **outer),
        document("a.py::A.f@2", start_line=2, end_line=3, **inner),
        document("a.py::A.f@22", start_line=22, end_line=23, **inner),
    ]
    assert render(build_outline(documents)) == {
        "a.py::A@1": {"a.py::A.f@2": {}},
        "a.py::A@20": {"a.py::A.f@22": {}},
    }


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("src/http", "src/http/"),
        ("./src/http/", "src/http/"),
        ("src/http/adapters.py", "src/http/adapters.py"),
        ("src/http/adapters.py::HTTPAdapter.send", "src/http/adapters.py::HTTPAdapter.send"),
        (".", "."),
    ],
)
def test_a_part_is_found_by_path_or_id(tree, path, found):
    assert find_outline(tree, path).document.id == found


def test_a_part_that_is_not_there_is_refused_with_what_is_near(tree):
    with pytest.raises(UsageError, match=r"no 'lib/cookies\.py' in this index; perhaps src/http/cookies\.py"):
        find_outline(tree, "lib/cookies.py")
