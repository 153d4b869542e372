"""A prompt file is read once, where a run begins, and what is wrong with it is said in one line."""

import json

import pytest

from summidx.errors import UsageError
from summidx.instructions import INSTRUCTION_KEYS, MAX_INSTRUCTION_CHARS, load_instructions
from summidx.keys import build_key
from summidx.settings import Provider, load_settings


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes) -> str:
        path = tmp_path / "prompts.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_what_it_says_is_in_the_settings_and_the_file_is_needed_no_more(write, tmp_path):
    path = write('function = "  Name the units.  "\nsystem = """\nYou keep a catalogue.\nOf physics.\n"""\n')
    settings = load_settings({"llm": {"prompt_file": path}})
    assert settings.llm.instructions == {
        "function": "Name the units.",
        "system": "You keep a catalogue.\nOf physics.",
    }
    (tmp_path / "prompts.toml").unlink()
    assert load_settings(json.loads(settings.model_dump_json())) == settings


def test_it_may_be_named_in_the_environment_or_by_a_relative_path(write, monkeypatch):
    write('repo = "Say it in verse."')
    monkeypatch.setenv("SUMMIDX_LLM__PROMPT_FILE", "prompts.toml")
    assert load_settings().llm.instructions == {"repo": "Say it in verse."}


def test_it_goes_before_instructions_of_the_settings_file_level_by_level(write, tmp_path):
    path = write('file = "From the file."')
    (tmp_path / "summidx.toml").write_text('[llm.instructions]\nfile = "Not me."\nclass = "Kept."\n')
    assert load_settings({"llm": {"prompt_file": path}}).llm.instructions == {
        "file": "From the file.",
        "class": "Kept.",
    }


def test_instructions_are_in_the_build_key_and_the_name_of_their_file_is_not(write, tmp_path):
    def key(**llm):
        settings = load_settings({"llm": {"provider": Provider.OPENAI, **llm}})
        return build_key("tree", settings, summarizer="s", embedding_model="e")

    named = key(prompt_file=write('file = "a"'))
    (tmp_path / "other.toml").write_text("# the same\nfile = 'a'\n")
    assert named == key(prompt_file="other.toml") == key(instructions={"file": "a"})
    assert len({named, key(), key(instructions={"file": "b"}), key(instructions={"repo": "a"})}) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('functions = "x"', "'functions' is none of function, class, file, directory, repo, system"),
        ("function = 3", "must be a text"),
        ('function = "  "', "not empty"),
        ("[function]\ntext = 'x'", "must be a text"),
        ("function = ", "as TOML"),
        (b"function = '\xff'", "as TOML in UTF-8"),
        (f"function = '{'x' * (MAX_INSTRUCTION_CHARS + 1)}'", "more than the 4000 allowed"),
        ("# " + "x" * 300_000, "larger than"),
        ("a = " + "[" * 50_000, "as TOML"),
        ('"a\\nb\\u001b[31m" = "x"', "is none of"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_wrong_with_it_is_said_in_one_line(write, content, said):
    path = write(content)
    with pytest.raises(UsageError, match=r"prompts\.toml") as raised:
        load_settings({"llm": {"prompt_file": path}})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_is_not_there_is_named(write, name):
    write("")
    with pytest.raises(UsageError, match=r"does not exist|cannot be read"):
        load_settings({"llm": {"prompt_file": name}})


def test_instructions_of_the_settings_are_checked_as_those_of_the_file():
    with pytest.raises(UsageError, match=r"llm\.instructions: 'planet' is none of"):
        load_settings({"llm": {"instructions": {"planet": "x"}}})


def test_every_level_may_be_named(write):
    path = write("\n".join(f'{key} = "Text for {key}."' for key in INSTRUCTION_KEYS))
    assert set(load_instructions(path)) == set(INSTRUCTION_KEYS)
