"""What is said twice agrees, and what must be said is said: versions, settings, keys, errors."""

import importlib.metadata
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import summidx
from summidx import errors
from summidx.keys import keyed_settings
from summidx.settings import Settings

ROOT = Path(__file__).parents[1]
KEYED = {
    "levels",
    "tests",
    "llm.provider",
    "llm.temperature",
    "llm.seed",
    "llm.max_tokens",
    "llm.max_tokens_function",
    "llm.context_tokens",
    "llm.extra_body",
    "llm.prompt_tokens",
    "llm.max_parts",
    "llm.instructions",
    "llm.summary_language",
    "embedding.trust_remote_code",
    "sources.max_file_bytes",
    "sources.max_depth",
    "parsing.cpu_s_per_file",
    "parsing.redact",
}
"""The settings that shape an index. A change of this list makes every index of every user be built again."""


def list_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from list_fields(field.annotation, f"{prefix}{name}.")


FIELDS = dict(list_fields(Settings))
ERRORS = [value for value in vars(errors).values() if inspect.isclass(value)]
DETAILS: dict[type[errors.SummidxError], tuple[object, ...]] = {
    errors.Overloaded: (1.5,),
    errors.ContextTooLong: (2048, 2049),
    errors.InvalidOutput: (900, 40),
}


def test_version_is_one() -> None:
    assert summidx.__version__ == importlib.metadata.version("summidx")
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert not released or released[0] == summidx.__version__


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_says_what_it_is(name: str) -> None:
    assert FIELDS[name].description, f"{name} needs a description, with its unit"


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_left_out_of_the_build_key_for_a_reason_only(name: str) -> None:
    extra = FIELDS[name].json_schema_extra
    assert extra is None or (isinstance(extra, dict) and len(str(extra["unkeyed"])) >= len("logs only"))


def test_settings_that_shape_an_index_change_on_purpose_only() -> None:
    assert {name for name, _ in keyed_settings(Settings())} == KEYED


def test_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r" {4}([│├└─ ]*)([A-Z]\w+)\b", line):
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn[match[2]] = above[depth - 1] if depth else "Exception"
    assert drawn == {error.__name__: error.__base__.__name__ for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_arrives_as_itself(error: type[errors.SummidxError]) -> None:
    """With all that it knows: a worker's error is pickled on its way to the flow."""
    raised = error("what, why, what to do", *DETAILS.get(error, ()))
    arrived = pickle.loads(pickle.dumps(raised))
    assert type(arrived) is error
    assert str(arrived) == "what, why, what to do"
    assert vars(arrived) == vars(raised)


def test_every_error_that_knows_more_is_tried_with_it() -> None:
    assert {error for error in ERRORS if "__init__" in vars(error)} == set(DETAILS)
