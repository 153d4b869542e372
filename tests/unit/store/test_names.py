import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.errors import UsageError
from summidx.store.names import MAX_FOLDER_BYTES, escape_name, unescape_name, without_surrogates


@given(st.text(alphabet=st.characters(codec=None, categories=None), min_size=1, max_size=16))
def test_every_name_comes_back_from_a_safe_folder_name(name):
    folder = escape_name(name)
    assert folder.isascii()
    assert not set(folder) & set("/\\:\0 *?\"'<>|")
    assert not folder.startswith(".")
    assert unescape_name(folder) == name


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("requests", "requests"),
        ("django__django@1.0+x", "django__django@1.0+x"),
        ("pallets/flask", "pallets%2Fflask"),
        ("..", "%2E."),
        (".git", "%2Egit"),
        ("100%", "100%25"),
        ("x\udcff", "x%ED%B3%BF"),
    ],
)
def test_folder_names_are_these(name, folder):
    assert escape_name(name) == folder


def test_names_that_cannot_be_a_folder_are_refused_with_what_to_do():
    for name in ("", "a" * (MAX_FOLDER_BYTES + 1), "é" * 40):
        with pytest.raises(UsageError, match="NAME=PATH"):
            escape_name(name)
    assert len(escape_name("a" * MAX_FOLDER_BYTES)) == MAX_FOLDER_BYTES


@pytest.mark.parametrize("folder", ["", ".git", "a b", "%2f", "%41", "%", "%FF", "a/b", "été"])
def test_folders_that_are_no_escaped_name_are_refused(folder):
    with pytest.raises(UsageError):
        unescape_name(folder)


def test_surrogates_become_printable():
    assert without_surrogates("a\udcffé") == r"a\udcffé"
