import pytest

from summidx.records import Level, Origin
from summidx.summarizers.template import render_template


@pytest.fixture
def render(make_request):
    return lambda **fields: render_template(make_request(**fields).unit).text


def test_the_first_docstring_sentence_then_the_signature(render):
    assert render() == (
        "Send a request and return its answer. Method of class `Session`: `def send(self, request, *, timeout=None)`."
    )


def test_a_gloss_says_what_the_language_says(render):
    assert render(
        docstring="", gloss="Text representation of Session", name="__repr__", signature="def __repr__(self)"
    ) == ("Text representation of Session. Method of class `Session`: `def __repr__(self)`.")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_user_name", "Get user name"),
        ("getUserName", "Get user name"),
        ("HTTPAdapter", "Http adapter"),
        ("_private", "Private"),
        ("naïve_größe", "Naïve größe"),
    ],
)
def test_else_its_name_in_words(render, name, words):
    assert render(docstring="", name=name).startswith(f"{words}. ")


def test_a_class_without_code(render):
    text = render(
        level=Level.CLASS,
        docstring="",
        own_source="",
        name="TooManyRedirects",
        qualified_name="TooManyRedirects",
        signature="class TooManyRedirects(RequestException)",
    )
    assert text == "Too many redirects. Type defined as `class TooManyRedirects(RequestException)`."


def test_tests_say_that_they_are(render):
    text = render(
        docstring="", is_test=True, name="test_sends", qualified_name="test_sends", signature="def test_sends()"
    )
    assert text == "Test sends. Test function: `def test_sends()`."


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"path": "tests/test_api.py", "name": "test_api.py", "is_test": True},
            "Test api. Python test file `tests/test_api.py`.",
        ),
        (
            {"path": "static/jquery.min.js", "name": "jquery.min.js", "language": "javascript"},
            "Jquery min. JavaScript file `static/jquery.min.js`.",
        ),
        ({"path": "src/wire/__init__.py", "name": "__init__.py"}, "Wire. Python file `src/wire/__init__.py`."),
        ({"path": "logo", "name": "logo", "language": "text"}, "Logo. Text file `logo`."),
    ],
)
def test_files(render, fields, text):
    assert render(level=Level.FILE, docstring="", signature="", own_source="", **fields) == text


def test_directories_and_repositories_tell_their_readme(render):
    readme = "Wire\n====\n\n.. image:: x.svg\n   :alt: x\n\nAn HTTP client for people. It retries.\n"
    assert render(level=Level.DIRECTORY, path="src/wire", own_source=readme, docstring="") == (
        "Wire: An HTTP client for people. Directory `src/wire/`."
    )
    assert render(level=Level.REPO, name="wire-1.0", own_source="", docstring="") == "Wire 1 0. Repository `wire-1.0`."


def test_it_is_never_empty_and_names_its_origin(make_request):
    template = render_template(make_request(docstring="", name="_", signature="", own_source="").unit)
    assert template.text == "Method of class `Session`: `_`."
    assert (template.origin, template.key) == (Origin.TEMPLATE, "")
