import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.records import Level, Unit
from summidx.store.tokenize import MAX_SOURCE_TOKENS, build_search_text, tokenize_code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HTTPAdapter", "httpadapter http adapter"),
        ("getUserName", "getusername get user name"),
        ("snake_case_name", "snake_case_name snake case name"),
        ("_private __init__ _ __", "private init"),
        ("get_userName2", "get_username2 get username2 username user name"),
        ("utf8 base64 sha256", "utf8 utf base64 base 64 sha256 sha 256"),
        ("OAuth2", "oauth2 oauth auth"),
        ("URLs parseURLs IDs", "urls parseurls parse urls ids"),
        ("MAX_RETRIES", "max_retries max retries"),
        ("status 429 != 0xFF, 3.14", "status 429 0xff 3 14"),
        ("requests.adapters.HTTPAdapter.send()", "requests adapters httpadapter http adapter send"),
        ("src/click/core.py::Command", "src click core py command"),
        ("re-try: don't", "re try don t"),
        (r'"failed\nReason: x"', "failed reason x"),
        ("Größe ÉCOLE e\u0301te\u0301", "größe école été"),
        ("x" * 500, "x" * 128),
        ("", ""),
        ("... !? \x00 \u200b", ""),
    ],
)
def test_code_and_prose_become_these_words(text, words):
    assert tokenize_code(text) == words.split()


@given(st.text(max_size=200))
def test_words_survive_being_stored_with_spaces_between_them(text):
    words = tokenize_code(text)
    assert " ".join(words).split() == words
    assert all(word and len(word) <= 128 for word in words)


@given(st.from_regex(r"[a-z]{2,8}(_[a-z]{2,8}){1,3}", fullmatch=True))
def test_a_name_in_snake_case_and_in_camel_case_share_their_parts(name):
    parts = name.split("_")
    camel = "".join(part.capitalize() for part in parts)
    assert set(parts) <= set(tokenize_code(name))
    assert set(parts) <= set(tokenize_code(camel))


def unit(**values):
    defaults = {
        "id": "src/http.py::Adapter.send",
        "level": Level.FUNCTION,
        "path": "src/http.py",
        "name": "send",
        "qualified_name": "Adapter.send",
        "language": "python",
        "start_line": 1,
        "end_line": 2,
        "parent_id": None,
    }
    return Unit(**(defaults | values))


def test_search_text_holds_path_and_name_twice_then_signature_source_and_summary():
    source = 'def send(self):\n    """Docs here."""\n    raise Refused("not today")'
    text = build_search_text(
        unit(signature="def send(self)", docstring="Docs here.", own_source=source), "Sends a request.", ["delivery"]
    )
    names = "src http py adapter send"
    assert (
        text
        == f"{names} {names} def send self def send self docs here raise refused not today sends a request delivery"
    )


def test_a_docstring_from_elsewhere_is_searched_too():
    assert build_search_text(unit(docstring="From a cell."), "", ()).endswith("from a cell")


def test_a_file_is_not_named_four_times():
    assert build_search_text(unit(path="a.py", qualified_name="a.py"), "", ()) == "a py a py"


def test_search_text_is_bounded():
    source = "word " * (MAX_SOURCE_TOKENS + 100)
    assert build_search_text(unit(own_source=source), "", ()).split().count("word") == MAX_SOURCE_TOKENS
