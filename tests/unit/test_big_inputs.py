"""What does not fit a prompt is read part by part, by a real walk with the prompts that a model would get."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fake_llm import FakeLLM

from summidx.answers import Answers
from summidx.cache import Cache
from summidx.errors import Overloaded
from summidx.hierarchy import REPO_ID, build_tree
from summidx.llm.calls import Calls
from summidx.records import Level, Origin, Status, SummaryRequest, TestsPolicy, Unit, UnitFailure
from summidx.settings import LLMSettings
from summidx.stop import Stop
from summidx.summarize import SummaryPolicy, Walk
from summidx.summarizers import ServedModel
from summidx.summarizers.chat import ChatSummarizer, Completion
from summidx.summarizers.prompts import PromptWriter

WORDS = ("load", "read", "parse", "write", "send", "token", "user", "order", "price", "mail", "cache", "queue", "route")


class FakeChat:
    """Answers as the fake server does, without a connection, and keeps what it was asked."""

    def __init__(self, *, answer=None, fault=None):
        self.prompts: list[str] = []
        self.answer = answer
        self.fault = fault

    async def complete(self, payload, record, *, timeout_s=None):
        user = payload["messages"][1]["content"]
        self.prompts.append(user)
        record.sent()
        await asyncio.sleep(0)
        if self.fault and self.fault(user):
            raise Overloaded("busy")
        text = self.answer(user) if self.answer else None
        return Completion(text or FakeLLM().answer_text(payload["messages"]), "stop", len(user) // 4, 30)

    async def count_tokens(self, payload):
        return None

    async def aclose(self):
        pass

    def asked(self) -> list[str]:
        """What was asked for, as a reader would name it."""
        return sorted(_name_of(prompt) for prompt in self.prompts)


def _name_of(prompt: str) -> str:
    lines = prompt.split("\n")
    named = next((line.split(": ", 1)[1] for line in lines if line.startswith(("Name: ", "Path: "))), REPO_ID)
    return f"part of {named}" if lines[0].startswith("Describe this part") else named


@pytest.fixture
def cache(tmp_path):
    cache = Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}")
    yield cache
    cache.close()


def walk(units, cache, chat=None, **settings):
    """Walk one repository; its outcomes, and the chat that was asked."""
    chat, llm = chat or FakeChat(), LLMSettings(max_retries=0, **settings)

    async def run():
        with ThreadPoolExecutor(1) as executor:
            stop = Stop()
            summarizer = ChatSummarizer(llm, ServedModel("fake", "/fake", 8192), chat, identity={"provider": "test"})
            calls = Calls(summarizer, llm, stop, cap=64)
            answers = Answers(cache, executor)
            each = Walk(
                build_tree(units, "r"),
                SummaryPolicy(frozenset(Level), TestsPolicy.FULL),
                summarizer,
                answers,
                calls,
                stop,
                0,
            )
            try:
                return await each.run(), each.usage
            finally:
                await answers.cancel()
                await calls.aclose()

    outcomes, usage = asyncio.run(run())
    return outcomes, chat, usage


def make_file(file_id: str, source: str = "", language: str = "python", **fields) -> Unit:
    defaults = {
        "id": file_id,
        "level": Level.FILE,
        "path": file_id,
        "name": file_id.rsplit("/", 1)[-1],
        "qualified_name": file_id,
        "language": language,
        "start_line": 1,
        "end_line": 9,
        "parent_id": None,
        "own_source": source or f"import {file_id.replace('/', '.')}\n",
    }
    return Unit(**{**defaults, **fields})


def make_names(n: int) -> list[str]:
    rng = random.Random(0)
    names: set[str] = set()
    while len(names) < n:
        names.add(f"{rng.choice(WORDS)}_{rng.choice(WORDS)}_{rng.choice(WORDS)}_{rng.randrange(100)}")
    return sorted(names)


def make_code(lines: int) -> str:
    """A long function of blocks with blank lines between."""
    rng = random.Random(3)
    out = ["def migrate(rows, target):", '    """Move all rows over."""']
    while len(out) < lines:
        a, b = rng.choice(WORDS), rng.choice(WORDS)
        out += [f"    for {a} in rows.{b}:", f"        target.{a}_{b}({a}, mode='{b}')", ""]
    return "\n".join(out)


# -- too many children ------------------------------------------------------------------------------------------------


def test_adding_the_first_file_of_five_thousand_costs_four_calls(cache):
    files = [make_file(f"src/{name}.py") for name in make_names(5000)] + [make_file("setup.py")]
    outcomes, chat, usage = walk(files, cache)
    assert outcomes["src/"].origin is Origin.REDUCED
    assert not outcomes["src/"].truncated
    assert {each.status for each in outcomes.values()} == {Status.OK}
    shown = "\n".join(prompt for prompt in chat.prompts if prompt.startswith("Describe this part"))
    assert all(f"- file {name}.py: Text " in shown for name in make_names(5000)), "every file is read"
    assert usage.asked == len(outcomes), "parts are no documents"
    _, chat, _ = walk([make_file("src/_first.py"), *files], cache)
    assert chat.asked() == [".", "part of src/", "src/", "src/_first.py"]


def test_a_class_of_five_hundred_methods_is_read_by_groups_and_an_edit_costs_its_group(cache):
    def units(edited=""):
        yield make_file("m.py")
        yield replace(make_file("m.py::Big"), level=Level.CLASS, path="m.py", parent_id="m.py", qualified_name="Big")
        for name in make_names(500):
            yield replace(
                make_file(f"m.py::Big.{name}", f"def {name}(self): return {name == edited}"),
                level=Level.FUNCTION,
                path="m.py",
                parent_id="m.py::Big",
                name=name,
                qualified_name=f"Big.{name}",
            )

    outcomes, chat, _ = walk(list(units()), cache)
    assert outcomes["m.py::Big"].origin is Origin.REDUCED
    assert chat.asked().count("part of Big") > 2
    name = make_names(500)[123]
    _, chat, _ = walk(list(units(edited=name)), cache)
    assert chat.asked() == sorted([".", "part of Big", "Big", f"Big.{name}", "m.py"])


def test_groups_of_groups_are_made_until_all_fits_and_nothing_tells_a_position(cache):
    files = [make_file(f"src/{name}.py") for name in make_names(900)] + [make_file("setup.py")]
    outcomes, chat, _ = walk(files, cache, prompt_tokens=2000)
    assert outcomes["src/"].origin is Origin.REDUCED
    assert not any(each.truncated for each in outcomes.values())
    groups = [prompt for prompt in chat.prompts if prompt.startswith("Describe this part of a directory")]
    assert any(" to " in line for group in groups for line in group.split("\n") if line.startswith("- "))
    assert not any(" of 7" in prompt or "part 1" in prompt.lower() for prompt in chat.prompts)
    _, chat, _ = walk([*files, make_file("src/mm_new.py")], cache, prompt_tokens=2000)
    assert len(chat.asked()) <= 12


# -- own source too long ----------------------------------------------------------------------------------------------


def build_function(source: str) -> list[Unit]:
    function = make_file(
        "m.py::migrate",
        source,
        level=Level.FUNCTION,
        path="m.py",
        parent_id="m.py",
        qualified_name="migrate",
        signature="def migrate(rows, target)",
        docstring="Move all rows over.",
    )
    return [make_file("m.py"), function]


def test_a_function_longer_than_the_context_is_read_whole(cache):
    source = make_code(4000)
    outcomes, chat, _ = walk(build_function(source), cache)
    summary = outcomes["m.py::migrate"]
    assert (summary.origin, summary.status, summary.truncated) == (Origin.REDUCED, Status.OK, False)
    parts = [prompt for prompt in chat.prompts if prompt.startswith("Describe this part of a function")]
    assert 4 <= len(parts) <= 32
    shown = "\n".join(parts)
    assert all(line in shown for line in source.split("\n"))
    assert all("Signature: def migrate(rows, target)" in part for part in parts)
    assert all(len(prompt) < 8192 * 3.2 for prompt in chat.prompts)
    (final,) = (prompt for prompt in chat.prompts if prompt.startswith("Describe this function"))
    assert '"""Move all rows over."""' in final
    assert "the rest is told above, part by part" in final
    assert final.count(" (and what follows): Text ") == len(parts)
    assert summary.tokens_in > sum(len(part) // 4 for part in parts), "its cost is that of its parts, too"


def test_an_edit_of_a_long_function_asks_for_its_piece_again(cache):
    lines = make_code(4000).split("\n")
    walk(build_function("\n".join(lines)), cache)
    lines[2000] = "        target.edited(mode='now')"
    _, chat, _ = walk(build_function("\n".join(lines)), cache)
    assert chat.asked() == [".", "m.py", "migrate", "part of migrate"]
    lines.insert(1000, "        target.inserted(mode='now')")
    _, chat, _ = walk(build_function("\n".join(lines)), cache)
    assert chat.asked().count("part of migrate") <= 3


def test_what_is_beyond_the_allowed_parts_is_left_out_visibly_and_recorded(cache):
    outcomes, chat, _ = walk(build_function(make_code(4000)), cache, max_parts=2)
    assert outcomes["m.py::migrate"].truncated
    assert chat.asked().count("part of migrate") == 2
    (final,) = (prompt for prompt in chat.prompts if prompt.startswith("Describe this function"))
    assert "further lines of the source are left out ...]" in final
    assert not outcomes["m.py"].truncated, "its parent has left out nothing"


@pytest.mark.parametrize(("language", "most"), [("json", 4), ("csv", 4), ("xml", 4), ("markdown", 4), ("python", 32)])
def test_data_and_prose_are_read_in_few_parts(cache, language, most):
    source = "\n\n".join(f'"{word}": {{"a": "{other}", "b": []}},' for word in make_names(3000) for other in WORDS[:2])
    outcomes, chat, _ = walk([make_file("big.dat", source, language)], cache)
    assert 1 < chat.asked().count("part of big.dat") <= most
    assert outcomes["big.dat"].truncated == (most == 4)
    assert outcomes["big.dat"].origin is Origin.REDUCED


def test_one_endless_line_is_cut_with_a_mark_and_one_call(cache):
    outcomes, chat, _ = walk([make_file("min.js", "var a=" + "f(x);" * 40_000, "javascript")], cache)
    assert chat.asked() == [".", "min.js"]
    assert outcomes["min.js"].truncated
    assert "the rest of the line is left out" in chat.prompts[0]


def test_an_endless_line_among_others_is_recorded_too(cache):
    source = "\n".join([*make_code(900).split("\n"), "x = '" + "A" * 60_000 + "'", *make_code(900).split("\n")])
    outcomes, _, _ = walk(build_function(source), cache)
    assert outcomes["m.py::migrate"].truncated


def test_a_long_readme_is_read_by_its_directory_too(cache):
    readme = "\n\n".join(f"## Part {word}\n\nHow to {word} a thing, at length." for word in make_names(900))
    outcomes, _, _ = walk([make_file("README.md", readme, "markdown"), make_file("a.py")], cache)
    assert outcomes["."].origin is Origin.REDUCED


# -- when parts go wrong ----------------------------------------------------------------------------------------------


def test_a_part_that_fails_fails_its_unit_and_what_was_answered_is_not_paid_again(cache):
    units = build_function(make_code(4000))
    chat = FakeChat(fault=lambda user: "target.mail_mail(" in user and user.startswith("Describe this part"))
    outcomes, failing, _ = walk(units, cache, chat)
    failed = {prompt for prompt in failing.prompts if chat.fault(prompt)}
    assert 0 < len(failed) < len({p for p in failing.prompts if p.startswith("Describe this part")})
    assert outcomes["m.py::migrate"] == UnitFailure("Overloaded", "busy")
    assert outcomes["m.py"].status is Status.DEGRADED
    outcomes, chat, _ = walk(units, cache)
    assert outcomes["m.py::migrate"].status is Status.OK
    assert {prompt for prompt in chat.prompts if prompt.startswith("Describe this part")} == failed
    assert {each.status for each in outcomes.values()} == {Status.OK}


def test_a_part_that_is_answered_unusably_degrades_its_unit_and_says_so(cache):
    def answer(user):
        return "..." if user.startswith("Describe this part") and "rows.mail:" in user else None

    outcomes, _, _ = walk(build_function(make_code(4000)), cache, FakeChat(answer=answer))
    summary = outcomes["m.py::migrate"]
    assert (summary.status, summary.origin) == (Status.DEGRADED, Origin.REDUCED)
    assert "parts: the answer is empty" in summary.reason


def test_equal_parts_of_two_files_are_one_call(cache):
    first = build_function(make_code(4000))
    walk(first, cache)
    other = [replace(unit, id=unit.id.replace("m.py", "n.py"), path="n.py") for unit in first]
    other = [replace(unit, parent_id=unit.parent_id and "n.py") for unit in other]
    _, chat, _ = walk([*first, *other], cache)
    assert "part of migrate" not in chat.asked()


def test_the_parts_are_the_same_whatever_the_context_beyond_the_prompts_length():
    request = SummaryRequest(build_function(make_code(4000))[1])
    parts = [PromptWriter(LLMSettings(), context).split(request).parts for context in (8192, 16_384, 131_072)]
    assert parts[0] == parts[1] == parts[2]
