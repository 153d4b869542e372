"""The same source and settings give the same rows, or INDEX_VERSION moves: old indexes must not seem up to date."""

import json
from dataclasses import asdict

from hostile import make_secrets

from summidx.documents import build_documents, embedding_text
from summidx.engine import Engine
from summidx.hierarchy import build_tree
from summidx.keys import INDEX_VERSION, digest
from summidx.parsing import parse
from summidx.records import Level, SourceFile
from summidx.settings import load_settings
from summidx.stop import Stop

GOLDEN = {
    1: "3db184cccce5b38861657f5448684629198c7764da4e0dfbfa6668d40a607ddf",
    5: "533ad8b5411b479e263a2e324bc2fb148af094e2da7d215df9167146d699a49b",
    3: "6f815a0f473b7c7b6211c480e5930ee60e57bc7d2b4aa34374d59593bc1a35e0",
    4: "6f815a0f473b7c7b6211c480e5930ee60e57bc7d2b4aa34374d59593bc1a35e0",
    6: "f76f2d1e31deebf37e6111035c34bad5b1869ca6c6c875d03a8b14b5a2aff14a",
    2: "78cbe3ac871afc964f11e7057a334c807a8255ec212a4c64c0f9cd7b8bbaa599",
}
"""Digest of all rows of SOURCE, by INDEX_VERSION. Where it is another one, move the version and add a line.

4: the same rows; the table of words counts those of code by themselves. 6: what no model wrote of a function is not
among its words.
"""

SOURCE = {
    "README.md": "# Frozen\n\nFrozen is a small library that never changes.\n\n## Usage\n\nImport it.\n",
    "pyproject.toml": '[project]\nname = "frozen"\ndependencies = ["numpy"]\n',
    "src/frozen/__init__.py": "from .clock import Clock\n",
    "src/frozen/clock.py": '''"""Clocks."""

import time
from .base import Base as Root

STEP_S = 1.5


# Told to be late.
@final
class Clock(Root):
    """Tells the time."""

    zone: str = "UTC"

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.late = late

    def __repr__(self) -> str:
        return f"Clock({self.late})"

    @property
    def name(self) -> str:
        return "clock"

    async def wait(self, seconds: float) -> None:
        """Wait until it is time. Raises ValueError for a negative wait."""
        if seconds < 0:
            raise ValueError("negative wait")
        while not self.is_due(seconds):
            await sleep(STEP_S)  # never busy

    def is_due(self, seconds):
        def inner():
            return time.time()

        return inner() > seconds or self.late


if STEP_S > 1:

    def fallbackClock(http_response_code):
        clock = Clock(late=True)
        return clock.is_due(http_response_code)
''',
    "web/clock.ts": "/** Ticks. */\nexport class Ticker extends Base {\n  get rate() { return this.r; }\n"
    "  tick(n: number) {\n    if (n > 1) {\n      return later(n);\n    }\n  }\n}\n"
    "export const later = (n: number) => new Ticker().tick(n);\n",
    "web/boot.js": "const { later } = require('./clock');\nexports.boot = function () {\n  return later(2);\n};\n",
    "src/Clock.java": "/** Shows time. */\n"
    "class Clock {\n  int now() {\n    for (;;) { tick(); }\n  }\n  void tick() {}\n}\n",
    "cmd/clock.go": "// Package clock ticks.\npackage clock\n\n"
    "// Tick ticks.\nfunc (c *Clock) Tick() int {\n\treturn c.n\n}\n",
    "src/clock.rs": "/// A clock.\npub struct Clock { n: u8 }\nimpl Clock {\n    fn tick(&self) -> u8 { self.n }\n}\n",
    "src/clock.c": "#define TICK(n) ((n) + 1)\n/* Ticks. */\nint tick(int n) {\n  return TICK(n);\n}\n",
    "src/clock.cpp": "namespace a {\nclass Clock { int Tick(); };\nint Clock::Tick() { return 1; }\n}\n",
    "src/Clock.cs": "/// <summary>Ticks.</summary>\nclass Clock {\n  int N { get; set; }\n  int Tick() => N;\n}\n",
    "lib/clock.rb": "# Ticks.\nmodule Frozen\n  class Clock\n    def tick\n      @n += 1\n    end\n  end\nend\n",
    "src/Clock.php": "<?php\n/** Ticks. */\nclass Clock {\n  function tick() { return $this->n; }\n}\n",
    "src/frozen/base.py": "class Base:\n    pass\n",
    "tests/test_clock.py": "from frozen.clock import Clock\n\n\ndef test_late():\n    assert Clock(True).is_due(1)\n",
    "docs/guide.rst": "Guide\n=====\n\nHow to tell the time.\n",
    "Makefile": "all:\n\techo done\n",
    "deploy.toml": f'token = "{make_secrets(1)["github"]}"\nregion = "north"\nsize = 3\nzone = "a"\n',
    "vendor/lib.js": "function f() { return 1; }\n",
}


def build_rows(tmp_path):
    settings = load_settings({"index_root": str(tmp_path), "embedding": {"model": "hashing"}})
    files = [SourceFile(path, text.encode()) for path, text in SOURCE.items()]
    tree = build_tree(parse(files, settings.parsing, Stop()).units, "frozen")
    engine = Engine(settings)
    try:
        documents = build_documents(tree, engine.summarize(tree).outcomes, frozenset(Level))
    finally:
        engine.close()
    return [{**asdict(document), "embedded": embedding_text(document)} for document in documents]


def test_rows_move_with_the_index_version_only(tmp_path):
    rows = build_rows(tmp_path)
    assert len(rows) > 20
    found = digest(json.loads(json.dumps(rows)))
    assert max(GOLDEN) == INDEX_VERSION
    assert found == GOLDEN[INDEX_VERSION], (
        "the same source gives other rows: move keys.INDEX_VERSION, and add its line to GOLDEN"
    )
