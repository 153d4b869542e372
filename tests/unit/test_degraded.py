"""What stands under a key where the model gave no usable answer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from summidx.answers import Answers
from summidx.cache import Cache
from summidx.errors import InvalidOutput
from summidx.hierarchy import REPO_ID, build_tree
from summidx.llm.calls import Calls
from summidx.records import Level, Status, TestsPolicy, Unit
from summidx.settings import LLMSettings
from summidx.stop import Stop
from summidx.summarize import SummaryPolicy, Walk
from summidx.summarizers import ServedModel
from summidx.summarizers.chat import ChatSummarizer

SOURCE = 'def fetch(url):\n    """Fetch a page."""\n    return client.get(url, retries=3)'
UNIT = Unit(
    id="net.py::fetch",
    level=Level.FUNCTION,
    path="net.py",
    name="fetch",
    qualified_name="fetch",
    language="python",
    start_line=1,
    end_line=3,
    parent_id="net.py",
    own_source=SOURCE,
    signature="def fetch(url)",
    docstring="Fetch a page.",
)
FILE = replace(
    UNIT,
    id="net.py",
    level=Level.FILE,
    name="net.py",
    qualified_name="net.py",
    parent_id=None,
    signature="",
    docstring="",
)


class UselessChat:
    """Answers nothing that can be used."""

    async def complete(self, payload, record, *, timeout_s=None):
        raise InvalidOutput("empty")

    async def count_tokens(self, payload):
        return None

    async def aclose(self):
        pass


def walk_useless(units, url, *, name="r"):
    """Walk a repository whose model answers nothing usable; its outcomes."""
    llm = LLMSettings(max_retries=0)

    async def run():
        with ThreadPoolExecutor(1) as executor, Cache(url) as cache:
            stop = Stop()
            summarizer = ChatSummarizer(llm, ServedModel("fake", "/fake", 8192), UselessChat(), identity={})
            calls, answers = Calls(summarizer, llm, stop, cap=64), Answers(cache, executor)
            policy = SummaryPolicy(frozenset(Level), TestsPolicy.FULL)
            try:
                return await Walk(build_tree(units, name), policy, summarizer, answers, calls, stop, 0).run()
            finally:
                await answers.cancel()
                await calls.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("unit", "changes"),
    [
        pytest.param(FILE, {"name": "other"}, id="the repository's name"),
        pytest.param(UNIT, {"path": "tests/net.py", "is_test": True}, id="test code"),
        pytest.param(FILE, {"is_test": True}, id="a test file"),
    ],
)
def test_a_degraded_text_holds_nothing_that_its_key_does_not(unit, changes, tmp_path):
    name = changes.get("name", "r")
    one = [FILE, UNIT] if unit is UNIT else [unit]
    first = walk_useless(one, f"sqlite:///{tmp_path / 'one.sqlite'}")
    moved = {field: value for field, value in changes.items() if field != "name"}
    path = moved.get("path", unit.path)
    ids = {"id": unit.id.replace(unit.path, path), "parent_id": path if unit.parent_id else None}
    other = [replace(unit, **moved, **ids)]
    if unit is UNIT:
        other.append(replace(FILE, id=path, path=path, qualified_name=path))
    second = walk_useless(other, f"sqlite:///{tmp_path / 'two.sqlite'}", name=name)
    by_key = {each.key: each for each in first.values()}
    shared = [each for each in second.values() if each.key in by_key]
    assert shared
    assert {each.status for each in shared} == {Status.DEGRADED}
    assert shared == [by_key[each.key] for each in shared]


def test_a_degraded_repository_is_not_called_by_the_name_of_a_copy(tmp_path):
    text = walk_useless([FILE], f"sqlite:///{tmp_path / 'cache.sqlite'}", name="some-fork")[REPO_ID].text
    assert "some-fork" not in text
    assert "Repository" in text
    assert "net.py" in text
