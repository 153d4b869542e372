"""Search over more repositories than are opened for a query: with a fleet table, without, and with a bad one."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from summidx.embedding.hashing import HashingEmbedder
from summidx.errors import UnknownIndex
from summidx.search.fleet import PICKED, rank_repositories
from summidx.search.ranking import Mode
from summidx.search.searcher import HELD_AFTER, HOLDS_PER_QUERY, Searcher
from summidx.store.fleet import read_fleet, refresh_fleet
from summidx.store.fleet_tables import FleetMatch

MANY = PICKED + 10


def word(number):
    """A word of its own, without a part that others share."""
    return "quix" + "".join("abcdefghij"[int(digit)] for digit in f"{number:03d}")


MODES = [Mode.HYBRID, Mode.BM25, Mode.SUMMARY]


@pytest.fixture
def publish_repo(publish_documents, corpus_document):
    """An index with a word of its own in the body of one function, and words that all have."""

    def publish(number, *, name="", own="", **values):
        own = own or word(number)
        documents = [
            corpus_document(f"m{number}.py", f"Module number {number}.", "import common"),
            corpus_document(f"m{number}.py::handle", f"Handles {own} requests.", f"def handle(): retry({own!r})"),
            corpus_document(f"m{number}.py::other", "Does other things.", "def other(): retry(1)"),
        ]
        name = name or f"repo-{number:03d}"
        publish_documents(name, documents, **({"source": f"/src/{name}"} | values))

    return publish


@pytest.fixture
def many(publish_repo):
    for number in range(MANY):
        publish_repo(number)


@pytest.fixture
def searcher(root):
    return Searcher(root, HashingEmbedder(256))


def opened(searcher):
    return set(searcher._opened)


def answers(hits):
    return [(hit.repo, hit.id, round(hit.score, 4)) for hit in hits]


def fleet_folder(root) -> Path:
    return root.path / ".summidx" / "fleet"


@pytest.mark.parametrize("mode", MODES)
def test_of_many_repositories_few_are_opened_and_the_right_one_answers(root, many, searcher, mode):
    assert refresh_fleet(root).written == MANY
    hits = searcher.search(f"{word(7)} requests", mode=mode)
    assert (hits[0].repo, hits[0].id) == ("repo-007", "m7.py::handle")
    assert len(opened(searcher)) == PICKED
    assert searcher.slow == ""


def test_scores_are_those_of_a_search_of_all(root, many, searcher):
    """Words are as rare as they are over all repositories, not as over the few that are opened."""
    refresh_fleet(root)
    with_table = searcher.search(f"retry {word(7)}", mode=Mode.BM25, k=3)
    shutil.rmtree(fleet_folder(root))
    without = Searcher(root).search(f"retry {word(7)}", mode=Mode.BM25, k=3)
    assert (with_table[0].repo, with_table[0].id) == (without[0].repo, without[0].id) == ("repo-007", "m7.py::handle")
    assert with_table[0].bm25 == pytest.approx(without[0].bm25, rel=1e-5)


@pytest.mark.parametrize("harm", ["absent", "no table", "manifest", "segment", "words", "newer format"])
def test_a_bad_fleet_table_makes_search_slower_and_never_wrong(root, many, searcher, harm):
    refresh_fleet(root)
    folder = fleet_folder(root)
    if harm == "absent":
        shutil.rmtree(folder)
    elif harm == "no table":
        shutil.rmtree(folder / "generations")
    elif harm == "manifest":
        (folder / "CURRENT").write_bytes((folder / "CURRENT").read_bytes().replace(b"repo-007", b"repo-00x"))
    elif harm == "newer format":
        (folder / "CURRENT").write_text('{"format": 99}')
    else:
        what = "documents.lance/data" if harm == "segment" else "words.lance"
        for path in folder.glob(f"generations/*/{what}/**/*"):
            if path.is_file():
                path.write_bytes(b"\0" * path.stat().st_size)
    hits = searcher.search(f"{word(7)} requests")
    assert (hits[0].repo, hits[0].id) == ("repo-007", "m7.py::handle")
    assert len(opened(searcher)) == MANY
    assert searcher.slow
    if harm != "newer format":
        refresh_fleet(root)
        again = Searcher(root, HashingEmbedder(256))
        assert again.search(f"{word(7)} requests")[0].repo == "repo-007"
        assert again.slow == ""


def test_what_is_newer_than_the_table_is_found_and_what_is_gone_is_not(root, many, searcher, publish_repo):
    refresh_fleet(root)
    publish_repo(7, own="gargantuan", publish_id="p2")
    publish_repo(900, own="leviathan")
    shutil.rmtree(root.path / "repo-003")
    assert searcher.search("gargantuan", mode=Mode.BM25)[0].repo == "repo-007"
    assert searcher.search("leviathan", mode=Mode.BM25)[0].repo == "repo-900"
    assert searcher.search(word(7), mode=Mode.BM25) == []
    assert searcher.search(word(3), mode=Mode.BM25) == []
    done = refresh_fleet(root)
    assert (done.repositories, done.written) == (MANY, 2)
    again = Searcher(root, HashingEmbedder(256))
    assert again.search("gargantuan", mode=Mode.BM25)[0].repo == "repo-007"
    assert again.search("leviathan", mode=Mode.BM25)[0].repo == "repo-900"
    assert again.search(word(7), mode=Mode.BM25) == []
    assert len(opened(again)) <= PICKED


def test_commits_of_one_repository_count_once_unless_they_are_named(root, many, searcher, publish_repo):
    for number in range(3):
        values = {"own": "gargantuan", "source": "/src/big", "built_at": f"2026-11-2{number}T00:00:00+00:00"}
        publish_repo(500 + number, name=f"big@{number}", **values)
    assert refresh_fleet(root).repositories == MANY + 1
    assert {hit.repo for hit in searcher.search("gargantuan", mode=Mode.BM25)} == {"big@2"}
    assert {hit.repo for hit in searcher.search("gargantuan", repos=["big@*"], mode=Mode.BM25)} == {"big@2"}
    named = searcher.search("gargantuan", repos=["big@0", "big@1"], mode=Mode.BM25)
    assert {hit.repo for hit in named} == {"big@0", "big@1"}


def test_patterns_choose_repositories(root, many, searcher, publish_repo):
    publish_repo(7, name="team/web-7")
    publish_repo(8, name="odd[1]", own=word(7))
    refresh_fleet(root)
    assert [hit.repo for hit in searcher.search(word(7), repos=["team/*"], mode=Mode.BM25)] == ["team/web-7"]
    assert {hit.repo for hit in searcher.search(word(7), repos=["odd[1]"], mode=Mode.BM25)} == {"odd[1]"}
    by_pattern = searcher.search(word(7), repos=["repo-0[012]?"], mode=Mode.BM25)
    assert {hit.repo for hit in by_pattern} == {"repo-007"}
    assert searcher.search(word(7), repos=["repo-01*", "repo-02?", "repo-00[0-6]"], mode=Mode.BM25) == []
    with pytest.raises(UnknownIndex, match=r"named like 'nothing-\*'; there are: odd\[1\], repo-000"):
        searcher.search(word(7), repos=["nothing-*"])


def test_indexes_of_other_embedding_models_are_found_by_words_and_left_out_by_vectors(
    root, many, searcher, publish_repo
):
    publish_repo(600, own="gargantuan", embedding_model="another/model", name="another")
    refresh_fleet(root)
    assert searcher.search("gargantuan", mode=Mode.BM25)[0].repo == "another"
    assert "another" not in {hit.repo for hit in searcher.search("gargantuan")}
    assert "was embedded by another/model" in searcher.left_out["another"]
    assert len(read_fleet(root).segments) == 2


def test_a_damaged_index_is_left_out_of_the_table_and_of_the_search(root, many, searcher):
    for path in root.path.glob("repo-004/generations/*/documents.lance/_versions/*"):
        path.write_bytes(b"")
    (root.path / "repo-005" / "CURRENT").write_text("{}")
    done = refresh_fleet(root)
    assert set(done.left_out) == {"repo-004", "repo-005"}
    assert searcher.search(word(7))[0].repo == "repo-007"
    assert set(searcher.left_out) == {"repo-004", "repo-005"}


def test_functions_alone_are_found_too(root, many, searcher, publish_documents, corpus_document):
    only = [corpus_document("a.py::play", "Plays the gargantuan xylophone.")]
    publish_documents("functions-only", only, source="/src/functions-only")
    publish_documents("empty", [], source="/src/empty")
    refresh_fleet(root)
    assert searcher.search("gargantuan xylophone", mode=Mode.BM25)[0].repo == "functions-only"
    assert len(opened(searcher)) <= PICKED


def test_a_searcher_sees_a_refreshed_table(root, many, searcher, publish_repo):
    refresh_fleet(root)
    assert searcher.search("leviathan", mode=Mode.BM25) == []
    for number in range(700, 730):
        publish_repo(number, own="leviathan" if number == 725 else "")
    refresh_fleet(root)
    refresh_fleet(root, rebuild=True)
    refresh_fleet(root, rebuild=True)
    assert searcher.search("leviathan", mode=Mode.BM25)[0].repo == "repo-725"
    assert searcher.slow == ""


def test_repositories_are_ranked_by_the_best_few_of_their_documents():
    def match(repo, score, *, aside=False):
        return FleetMatch(repo, "p", score, aside)

    words = [match("one-hit", 9.0), match("steady", 8.0), match("steady", 8.0), match("steady", 7.0)]
    words += [match("tests", 10.0, aside=True), match("weak", 1.0)]
    assert rank_repositories(words, [])[:2] == ["steady", "one-hit"]
    assert rank_repositories(words, [])[-1] == "weak"
    near = [match("weak", 0.9), match("near", 0.8), match("steady", 0.1)]
    assert rank_repositories([], near) == ["weak", "near", "steady"]


def _refresh_in_a_process(path):
    from summidx.store.generations import IndexRoot

    refresh_fleet(IndexRoot(path))


def test_two_refreshes_at_once_leave_one_good_table(root, many, searcher):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_refresh_in_a_process, args=(root.path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert refresh_fleet(root).written == 0
    assert searcher.search(f"{word(7)} requests")[0].repo == "repo-007"
    assert len(opened(searcher)) == PICKED
    assert not list(fleet_folder(root).glob("staging/*"))


def test_what_a_fleet_table_picks_is_not_held_in_memory(root, many, searcher):
    refresh_fleet(root)
    for _ in range(HELD_AFTER + 2):
        searcher.search("retry requests")
    assert not any(each.table.hold for _, each in searcher._opened.values())
    names = sorted(searcher._opened)[:5]
    for wanted in (HOLDS_PER_QUERY, 2 * HOLDS_PER_QUERY, len(names)):
        searcher.search("retry requests", repos=names)
        held = {name for name, (_, each) in searcher._opened.items() if each.table.hold}
        assert held <= set(names)
        assert len(held) == wanted, "one query reads all of them"
