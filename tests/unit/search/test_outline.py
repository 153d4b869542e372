import pytest

from summidx.errors import UsageError
from summidx.records import Level
from summidx.search.outline import build_outline, cut_roots, find_outline, fit_depth


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


def test_a_tree_is_cut_at_a_depth_and_says_how_much_is_hidden(tree):
    (cut,) = cut_roots(tree, depth=1)
    assert render([cut]) == {
        ".": {"src/http/": {}, "tests/test_adapters.py::test_handle_status": {}, "docs/guide.md": {}}
    }
    assert [each.hidden for each in cut.children] == [6, 0, 0]
    assert (cut_roots(tree, depth=0)[0].hidden, cut_roots(tree)) == (9, tree)


def test_levels_that_are_not_asked_for_are_passed_over_and_what_is_in_them_is_not(tree):
    (cut,) = cut_roots(tree, levels=[Level.FILE, Level.FUNCTION])
    assert render([cut]) == {
        ".": {
            "src/http/adapters.py": {
                "src/http/adapters.py::HTTPAdapter.send": {},
                "src/http/adapters.py::HTTPAdapter.handle_status": {},
            },
            "src/http/cookies.py": {"src/http/cookies.py::parse_cookie": {}},
            "tests/test_adapters.py::test_handle_status": {},
            "docs/guide.md": {},
        }
    }
    (shallow,) = cut_roots(tree, depth=1, levels=[Level.FILE, Level.FUNCTION])
    assert [each.hidden for each in shallow.children] == [2, 1, 0, 0]


def test_without_a_document_for_the_repository_the_others_are_a_step_below_it(corpus):
    roots = build_outline(corpus()[1:])
    assert cut_roots(roots, depth=0) == ()
    assert render(cut_roots(roots, depth=1))["src/http/"] == {}


@pytest.mark.parametrize(("most", "depth"), [(10, None), (9, 3), (8, 3), (7, 2), (4, 1), (1, 1)])
def test_a_tree_goes_as_deep_as_so_many_documents_do(tree, most, depth):
    assert fit_depth(tree[0], most) == depth
