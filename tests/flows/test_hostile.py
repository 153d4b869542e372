"""The whole hostile corpus through the command, with an LLM server: nothing run, read outside, sent, stored, shown raw.

What each repository costs by itself: tests/unit/test_hostile.py.
"""

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hostile import TRAPS, write_corpus

from summidx.store.generations import IndexRoot

MAX_RSS_KIB = 1_000_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("hostile"))


def summidx(build, *args):
    command = [Path(sys.executable).with_name("summidx"), *args]
    done = subprocess.run(command, cwd=build.cwd, env=build.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def steering(text):
    return sorted({c for c in text if not c.isprintable() and c != "\n"})


@pytest.mark.chaos
@pytest.mark.long_form
@pytest.mark.timeout(1200)
def test_the_whole_corpus_harms_nothing(build, api, fake_llm, corpus):
    build.extra_env |= {"OPENAI_API_KEY": "sk-of-the-worker", "SUMMIDX_EMBEDDING__MODEL": "hashing"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ["--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url]

    done = build("--repos-root", corpus.repos, *options)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not corpus.canary.exists()
    assert after.ru_maxrss <= max(before.ru_maxrss, MAX_RSS_KIB)

    states = api.task_states(api.last_flow_run()["id"])
    endings = {"Completed": "built", "Failed": "failed"}
    assert {name: endings[state] for name, state in states.items()} == {name: t.ending for name, t in TRAPS.items()}
    for name, trap in TRAPS.items():
        if trap.reason:
            assert re.search(rf"^{name}: failed: .*{trap.reason}", done.stderr, re.MULTILINE), name

    shown = [summidx(build, "list", "--index-root", "index"), done.stdout, done.stderr]
    stored = []
    root = IndexRoot(build.cwd / "index")
    built = [name for name, trap in TRAPS.items() if trap.ending == "built"]
    assert set(root.names()) == set(built)
    for name in built:
        index = root.open(name)
        stored.append(json.dumps([asdict(each) for each in index.table.documents()], ensure_ascii=False))
        stored.append(json.dumps([asdict(each) for each in root.read_skips(name, index.manifest)], ensure_ascii=False))
    shown.append(summidx(build, "show", "secrets", "--index-root", "index"))
    shown.append(summidx(build, "show", "names-in-git", "--index-root", "index"))
    shown.append(summidx(build, "search", "sum of the items", "--index-root", "index", "--embedding-model", "hashing"))
    logs = [path.read_text(errors="replace") for path in build.cwd.glob("logs/**/*.*")]
    sent = [json.dumps(body, ensure_ascii=False) for body in fake_llm.requests]
    assert len(sent) > 20
    for text in (*shown, *stored, *logs, *sent):
        assert not [word for word in corpus.forbidden if word in text]
    for text in (*shown, *logs):
        assert not steering(text)
        assert "\nFAKED LOG LINE" not in text
    assert "redacted" in shown[3]
    assert not [path for path in build.cwd.rglob("*") if "sk-of-the-worker" in _text_of(path)]


def _text_of(path):
    return path.read_bytes().decode("latin-1") if path.is_file() and os.access(path, os.R_OK) else ""
