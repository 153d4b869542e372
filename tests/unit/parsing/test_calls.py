"""Who calls whom: what syntax can tell is found, what it cannot is not guessed."""

from collections.abc import Callable

import pytest

from summidx.records import Unit

ReadById = Callable[..., dict[str, Unit]]

PACKAGE = {
    "src/shop/__init__.py": "from .core import Cart as Basket, total\nfrom . import text\n",
    "src/shop/core.py": (
        "from .base import Base\n"
        "def total(items): return sum(items)\n"
        "class Cart(Base):\n"
        "    def __init__(self): self.log = Log()\n"
        "    def add(self, item): return item\n"
        "    def checkout(self): return total(self.items())\n"
    ),
    "src/shop/base.py": (
        "class Root:\n"
        "    def save_all(self): pass\n"
        "class Base(Root):\n"
        "    def items(self): return []\n"
        "    @classmethod\n"
        "    def make(cls) -> 'Base': return cls()\n"
        "    @property\n"
        "    def owner(self) -> 'Owner': return Owner()\n"
        "class Owner:\n"
        "    def greet_politely(self): pass\n"
    ),
    "src/shop/text.py": "def render(x): return x\n",
    "src/shop/logs.py": "class Log:\n    def write_entry(self): pass\n    def __call__(self): pass\n",
}

CALLS = [
    pytest.param("def helper(): pass\ndef f(): helper()\n", {"main.py::helper"}, id="same file"),
    pytest.param("from shop.core import total\ndef f(): total(1)\n", {"src/shop/core.py::total"}, id="imported"),
    pytest.param("from shop.core import total as t\ndef f(): t(1)\n", {"src/shop/core.py::total"}, id="renamed"),
    pytest.param("from shop import total\ndef f(): total(1)\n", {"src/shop/core.py::total"}, id="re-exported"),
    pytest.param("import shop.core\ndef f(): shop.core.total(1)\n", {"src/shop/core.py::total"}, id="dotted"),
    pytest.param("import shop.core as c\ndef f(): c.total(1)\n", {"src/shop/core.py::total"}, id="module renamed"),
    pytest.param("import shop\ndef f(): shop.text.render(1)\n", {"src/shop/text.py::render"}, id="module of a package"),
    pytest.param("from shop.core import *\ndef f(): total(1)\n", {"src/shop/core.py::total"}, id="star"),
    pytest.param("def f():\n from shop.core import total\n total(1)\n", {"src/shop/core.py::total"}, id="local import"),
    pytest.param("from shop import Basket\ndef f(): Basket()\n", {"src/shop/core.py::Cart"}, id="class, not __init__"),
    pytest.param("from shop import Basket\ndef f(): Basket.add(1, 2)\n", {"src/shop/core.py::Cart.add"}, id="by class"),
    pytest.param(
        "from shop import Basket\ndef f(): Basket.make().items()\n",
        {"src/shop/base.py::Base.make", "src/shop/base.py::Base.items"},
        id="class method of a base, then its annotated return",
    ),
    pytest.param(
        "from shop import Basket\ndef f():\n b = Basket()\n b.save_all()\n",
        {"src/shop/core.py::Cart", "src/shop/base.py::Root.save_all"},
        id="object made here, method of its base's base",
    ),
    pytest.param(
        "from shop import Basket\ndef f(b: Basket | None = None): b.add(1)\n",
        {"src/shop/core.py::Cart.add"},
        id="annotated parameter",
    ),
    pytest.param(
        "from shop import Basket\ndef f(b: Basket): b.owner.greet_politely()\n",
        {"src/shop/base.py::Owner.greet_politely"},
        id="through a property",
    ),
    pytest.param(
        "def f(x): x.greet_politely()\n", {"src/shop/base.py::Owner.greet_politely"}, id="only one such method"
    ),
    pytest.param(
        "from shop.logs import Log\nlog = Log()\ndef f(): log()\n", {"src/shop/logs.py::Log.__call__"}, id="object"
    ),
    pytest.param("from shop.core import total\n@total\ndef f(): pass\n", {"src/shop/core.py::total"}, id="decorator"),
    pytest.param(
        "try:\n import fast as t\nexcept ImportError:\n import shop.text as t\ndef f(): t.render(1)\n",
        {"src/shop/text.py::render"},
        id="whichever import is of the repository",
    ),
    pytest.param("def f(): f()\n", set(), id="itself"),
    pytest.param("from shop.core import total\ndef f(total): total(1)\n", set(), id="hidden by a parameter"),
    pytest.param("from shop.core import total\ndef f():\n total = g()\n total(1)\n", set(), id="hidden by a variable"),
    pytest.param(
        "from shop.core import total\ndef f():\n def total(): pass\n total()\n", set(), id="hidden by a function"
    ),
    pytest.param("def add(): pass\ndef f(x): x.add(1)\n", set(), id="a common name on an unknown object"),
    pytest.param("import requests\ndef f(): requests.render(1)\n", set(), id="a module from elsewhere"),
    pytest.param("def f(): print(len([]))\n", set(), id="built in"),
    pytest.param("import json\ndef f(): json.render(1)\n", set(), id="the standard library"),
]


@pytest.mark.parametrize(("text", "expected"), CALLS)
def test_calls_of_a_function(read_by_id: ReadById, text: str, expected: set[str]) -> None:
    units = read_by_id(PACKAGE | {"main.py": text, "lib/json.py": "def render(x): pass\n"})
    assert set(units["main.py::f"].calls) == expected
    for callee in expected:
        assert "main.py::f" in units[callee].called_by


def test_methods_call_each_other_through_self_super_and_attributes(read_by_id: ReadById) -> None:
    text = (
        "from shop.core import Cart\n"
        "from shop.logs import Log\n"
        "class Mine(Cart):\n"
        "    def __init__(self, log: Log):\n"
        "        super().__init__()\n"
        "        self.log = log\n"
        "    def add(self, item):\n"
        "        self.log.write_entry()\n"
        "        self.note()\n"
        "        return super().add(item)\n"
        "    def note(self): self.save_all()\n"
    )
    units = read_by_id(PACKAGE | {"main.py": text})
    assert units["main.py::Mine.__init__"].calls == ("src/shop/core.py::Cart.__init__",)
    assert units["main.py::Mine.add"].calls == (
        "main.py::Mine.note",
        "src/shop/core.py::Cart.add",
        "src/shop/logs.py::Log.write_entry",
    )
    assert units["main.py::Mine.note"].calls == ("src/shop/base.py::Root.save_all",)


def test_calls_outside_functions_belong_to_the_class_or_file(read_by_id: ReadById) -> None:
    units = read_by_id({"a.py": "def g(): pass\nclass C:\n    x = g()\ng()\n"})
    assert units["a.py"].calls == ("a.py::g",)
    assert units["a.py::C"].calls == ("a.py::g",)
    assert units["a.py::g"].called_by == ("a.py", "a.py::C")


def test_a_call_of_an_overloaded_function_is_one_of_its_implementation(read_by_id: ReadById) -> None:
    text = "@overload\ndef f(x: int): ...\n@overload\ndef f(x: str): ...\ndef f(x): return x\ndef g(): f(1)\n"
    units = read_by_id({"a.py": text})
    assert units["a.py::g"].calls == ("a.py::f",)
    assert units["a.py::f"].start_line == 5


def test_code_that_is_no_test_does_not_call_a_test_by_a_guess(read_by_id: ReadById) -> None:
    files = {"a.py": "def f(x): x.interact_now()\n", "tests/test_a.py": "class Fake:\n def interact_now(self): pass\n"}
    assert read_by_id(files)["a.py::f"].calls == ()


def test_names_that_lead_in_circles_end(read_by_id: ReadById) -> None:
    files = {
        "a.py": (
            "from b import x\ny = x\nclass C(C): pass\nclass D(E): pass\nclass E(D): pass\n"
            "def f(): y(); C().m1(); D().m2()\n"
        ),
        "b.py": "from a import y\nx = y\nfrom b import *\n",
        "c.py": "".join(f"a{i} = a{i + 1}\n" for i in range(3000)) + "def f(): a0()\n",
    }
    units = read_by_id(files)
    assert units["a.py::f"].calls == ("a.py::C", "a.py::D")
    assert units["c.py::f"].calls == ()


IMPORTS = {
    "src/pkg/__init__.py": "",
    "src/pkg/a.py": (
        "from . import b, missing\nfrom .sub import c\nfrom .sub.c import f\nfrom .. import outside\n"
        "import os.path, pkg.b\n"
    ),
    "src/pkg/b.py": "",
    "src/pkg/sub/__init__.py": "from ..b import x\nfrom __future__ import annotations\nfrom pkg import a\n",
    "src/pkg/sub/c.py": "def f():\n    import lazily.loaded\n",
}


def test_imports_are_dotted_absolute_and_name_the_module(read_by_id: ReadById) -> None:
    units = read_by_id(IMPORTS)
    assert units["src/pkg/a.py"].imports == ("os.path", "pkg", "pkg.b", "pkg.sub.c", "src")
    assert units["src/pkg/sub/__init__.py"].imports == ("pkg.a", "pkg.b")
    assert units["src/pkg/sub/c.py"].imports == ("lazily.loaded",)


def test_of_modules_of_one_name_the_nearest_is_meant_and_none_where_two_are_as_near(read_by_id: ReadById) -> None:
    files = {
        "one/lib.py": "def go_there(): pass\n",
        "one/main.py": "from lib import go_there\ngo_there()\n",
        "two/lib.py": "def go_there(): pass\n",
        "main.py": "from lib import go_there\ngo_there()\n",
    }
    units = read_by_id(files)
    assert units["one/main.py"].calls == ("one/lib.py::go_there",)
    assert units["main.py"].calls == ()
