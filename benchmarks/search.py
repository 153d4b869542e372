"""Search over 1,000 indexes and over one large one: latency, build time, bytes, what the fleet table misses, recall.

    python -m benchmarks.search --work FOLDER        # FOLDER keeps the indexes, 10 GB at full size, for the next time

Queries are asked of the product's Searcher, in one process on all cores; embedding a query by a model is not in the
times. Warm: queries that were asked once before, 25 queries ago. New: they were not, but others were. Cold: the first
query of a new process, its imports not counted, with the files of the indexes out of the page cache.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.harness import ROOT, start_result, write_result
from benchmarks.search_corpus import (
    DIM,
    EMBEDDER,
    Floats,
    Pool,
    build_index,
    copy_index,
    load_pool,
    original_id,
    publish_index,
    publish_number,
)
from summidx.embedding.models import load_embedder
from summidx.records import Vectors
from summidx.search.query import STOP_WORDS, build_query
from summidx.search.ranking import Mode
from summidx.search.searcher import Searcher
from summidx.settings import EmbeddingSettings
from summidx.store.disk_files import iterate_files
from summidx.store.fleet import read_fleet, refresh_fleet
from summidx.store.generations import IndexRoot
from summidx.store.place import FLEET
from summidx.store.tables import IndexTable

PACKAGES = ("dask", "distributed", "sqlalchemy", "prefect", "bokeh", "hypothesis", "docker", "aiohttp", "networkx")
TERMS = 32
REAL_VECTORS = 2_000
"""So many summaries are embedded by MiniLM for the one large index; its other vectors lie near these."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    median: float
    p95: float
    most: float
    queries: int


def summarise(times_s: Sequence[float]) -> Latency:
    """Of the times of some queries."""
    ms = sorted(1000 * each for each in times_s)
    return Latency(round(statistics.median(ms), 1), round(float(np.percentile(ms, 95)), 1), round(ms[-1], 1), len(ms))


def make_queries(pool: Pool, n: int, *, terms: int | None = None) -> list[str]:
    """Texts to search for: first sentences of summaries, or so many words of a document's text."""
    chance = random.Random(7)
    rows = chance.sample([row for row, each in enumerate(pool.documents) if len(each.search_text) > 600], n)
    if terms is None:
        return [pool.documents[row].summary.partition(". ")[0][:200] for row in rows]
    queries = []
    for row in rows:
        words = dict.fromkeys(word for word in pool.documents[row].search_text.split() if word not in STOP_WORDS)
        queries.append(" ".join(list(words)[:terms]))
    return queries


def time_queries(searcher: Searcher, queries: Sequence[str], mode: Mode) -> list[Latency]:
    """Each query twice, one round after the other: as new ones, and as ones whose repositories are open."""
    rounds = []
    for _ in range(2):
        times = []
        for query in queries:
            start = time.perf_counter()
            searcher.search(query, mode=mode)
            times.append(time.perf_counter() - start)
        rounds.append(summarise(times))
    return rounds


def time_cold(folder: Path, query: str, mode: Mode) -> dict[str, float]:
    """The first and the second query of a new process, in ms, after the files have left the page cache."""
    for name, _ in iterate_files(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    program = (
        "import json, sys, time\n"
        "from benchmarks.search_corpus import EMBEDDER\n"
        "from summidx.search.searcher import Searcher\n"
        "from summidx.store.generations import IndexRoot\n"
        "from summidx.store import tables\n"
        "from summidx.search.ranking import Mode\n"
        "folder, query, mode = sys.argv[1:]\n"
        "searcher, times = Searcher(IndexRoot(folder), EMBEDDER), []\n"
        "for _ in range(2):\n"
        "    start = time.perf_counter()\n"
        "    searcher.search(query, mode=Mode(mode))\n"
        "    times.append(round(1000 * (time.perf_counter() - start), 1))\n"
        "print(json.dumps(dict(zip(('first', 'second'), times))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), query, mode.value],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    times: dict[str, float] = json.loads(done.stdout)
    return times


def size_of(folder: Path) -> int:
    """Bytes of the files under a folder."""
    return sum(status.st_size for _, status in iterate_files(folder))


def build_pool(folder: Path) -> None:
    """Index the installed packages, without an LLM, with hashed vectors."""
    site = Path(np.__file__).parents[1]
    repos = [part for name in PACKAGES if (site / name).is_dir() for part in ("--repo", str(site / name))]
    own = {"SUMMIDX_EMBEDDING__MODEL": EMBEDDER.identity, "PREFECT_HOME": str(folder / ".prefect")}
    options = [*repos, "--index-root", str(folder), "--log-dir", str(folder / ".logs"), "--force-cpu"]
    subprocess.run([sys.executable, "flows/build.py", *options], cwd=ROOT, env={**os.environ, **own}, check=True)


def build_fleet(work: Path, pool_folder: Path, n: int, size: int, distinct: int) -> tuple[Path, dict[str, Any]]:
    """The indexes of a fleet, of which the first `distinct` are made; those that are there are kept."""
    folder = work / f"fleet-{n}x{size}"
    there = IndexRoot(folder).versions()
    missing = [number for number in range(n) if f"repo-{number:05d}" not in there]
    made = [number for number in missing if number < distinct]
    start = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as processes:
        publish = partial(publish_number, folder, pool_folder, size)
        for done, _ in enumerate(processes.map(publish, made), 1):
            if done % 50 == 0:
                print(f"{done} of {len(made)} indexes, {time.perf_counter() - start:.0f} s", flush=True)
    for number in missing[len(made) :]:
        copy_index(folder, f"repo-{number:05d}", f"repo-{number % distinct:05d}")
    seconds = time.perf_counter() - start
    return folder, {"written": len(made), "copied": len(missing) - len(made), "seconds": round(seconds, 1)}


@contextmanager
def reading_once(distinct: int) -> Iterator[None]:
    """Read of each index that was made what a refresh reads once; of its copies it is the same."""
    patches = []
    for name in ("read_outer", "read_words"):
        read = getattr(IndexTable, name)
        known: dict[int, Any] = {}

        def read_or_know(table: IndexTable, read: Any = read, known: dict[int, Any] = known) -> Any:  # noqa: ANN401
            number = int(Path(table.address.uri).parents[1].name.removeprefix("repo-")) % distinct
            if number not in known:
                known[number] = read(table)
            return known[number]

        patches.append(patch.object(IndexTable, name, read_or_know))
    with patches[0], patches[1]:
        yield


def measure_refresh(folder: Path, publish: Callable[[int, int], int], changed: int, distinct: int) -> dict[str, Any]:
    """Seconds of a first refresh, of one with nothing new, and of one after some indexes were published anew."""
    root = IndexRoot(folder)
    figures: dict[str, Any] = {}

    def refresh(name: str, *, rebuild: bool = False) -> None:
        start = time.perf_counter()
        done = refresh_fleet(root, rebuild=rebuild)
        figures[name] = {"seconds": round(time.perf_counter() - start, 2), **asdict(done)}
        print(name, figures[name], flush=True)

    with reading_once(distinct):
        refresh("first", rebuild=True)
    refresh("nothing_new")
    for number in range(changed):
        publish(number, 2)
    refresh(f"{changed}_changed")
    return figures


def measure_agreement(folder: Path, queries: Sequence[str], mode: Mode, k: int = 10) -> dict[str, Any]:
    """How much of what a search of all indexes finds is found through the fleet table, which is set aside meanwhile."""
    root = IndexRoot(folder)
    table, aside = folder / ".summidx" / "fleet", folder / ".summidx" / "fleet-aside"
    searcher = Searcher(root, EMBEDDER)
    ours = [searcher.search(query, mode=mode, k=k) for query in queries]
    table.rename(aside)
    try:
        searcher = Searcher(root, EMBEDDER)
        searcher.search(queries[0], mode=mode, k=k)  # opens all
        exact, times = [], []
        for query in queries:
            start = time.perf_counter()
            exact.append(searcher.search(query, mode=mode, k=k))
            times.append(time.perf_counter() - start)
    finally:
        aside.rename(table)
    found, first, same_code = [], [], []
    for some, best in zip(ours, exact, strict=True):
        names = {(each.repo, each.id) for each in some}
        codes = {original_id(each.id) for each in some}
        found.append(len(names & {(each.repo, each.id) for each in best}) / max(1, len(best)))
        first.append(bool(best) and (best[0].repo, best[0].id) in names)
        same_code += [original_id(each.id) in codes for each in best]
    return {
        "queries": len(queries),
        f"hits@{k}_found": round(float(np.mean(found)), 3),
        f"hits@{k}_whose_code_is_found": round(float(np.mean(same_code)), 3),
        f"best_hit_in_first_{k}": round(float(np.mean(first)), 3),
        "all_indexes_ms": asdict(summarise(times)),
    }


def build_large(work: Path, pool: Pool, size: int) -> tuple[Path, dict[str, Any]]:
    """One index of very many documents, with vectors about those of an embedding model."""
    folder = work / f"large-{size}"
    figures: dict[str, Any] = {}
    if not IndexRoot(folder).versions():
        documents, _ = build_index(pool, 0, size)
        start = time.perf_counter()
        vectors = near_real_vectors(work, pool, size)
        figures["vectors_s"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        publish_index(folder, "large", documents, Vectors(vectors))
        figures["write_s"] = round(time.perf_counter() - start, 1)
    figures["bytes_per_document"] = round(size_of(folder) / size)
    return folder, figures


def near_real_vectors(work: Path, pool: Pool, size: int) -> Floats:
    """(size, DIM): vectors between those of real summaries by MiniLM, two of one kind each, and moved a little."""
    real = real_vectors(work, pool)
    generator = np.random.default_rng(3)
    first = generator.integers(0, len(real), size)
    second = np.empty_like(first)
    for start in range(0, size, 2_000):  # one of the ten nearest of the first
        near = np.argpartition(-(real[first[start : start + 2_000]] @ real.T), 11, axis=1)[:, :11]
        second[start : start + 2_000] = near[np.arange(len(near)), generator.integers(0, 11, len(near))]
    share = generator.uniform(0.2, 0.8, (size, 1)).astype(np.float32)
    values = share * real[first] + (1 - share) * real[second]
    values += generator.normal(scale=0.4 / DIM**0.5, size=values.shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values, np.float32)


def real_vectors(work: Path, pool: Pool) -> Floats:
    """(REAL_VECTORS + queries, DIM): summaries, embedded by MiniLM; kept in a file."""
    path = work / "minilm.npy"
    if not path.exists():
        rows = random.Random(5).sample(range(len(pool.documents)), min(len(pool.documents), REAL_VECTORS))
        texts = [f"{pool.documents[row].qualified_name}: {pool.documents[row].summary}"[:400] for row in rows]
        embedder = load_embedder(EmbeddingSettings(), force_cpu=True)
        np.save(path, embedder.embed(texts, input_type="document").values)
    return np.asarray(np.load(path), np.float32)


def measure_recall(folder: Path, queries: Floats) -> dict[str, Any]:
    """Of the nearest by an exact search how many the approximate one finds, and the milliseconds of both."""
    table = IndexRoot(folder).open("large").table
    figures: dict[str, Any] = {}
    best: list[list[int]] = []
    for name, exact in (("exact", True), ("approximate", False)):
        for query in queries:
            table.nearest(query, 100, exact=exact)
        times, rows = [], []
        for query in queries:
            start = time.perf_counter()
            rows.append([match.row for match in table.nearest(query, 100, exact=exact)])
            times.append(time.perf_counter() - start)
        figures[f"{name}_ms"] = asdict(summarise(times))
        best = best or rows
        for k in (10, 100):
            same = [len(set(ours[:k]) & set(theirs[:k])) / k for ours, theirs in zip(rows, best, strict=True)]
            figures[f"recall@{k}"] = round(float(np.mean(same)), 4)
    return figures


def measure_fleet(
    options: argparse.Namespace, pool_folder: Path, plain: Sequence[str], long: Sequence[str]
) -> dict[str, Any]:
    """Many indexes."""
    distinct = min(options.distinct or options.indexes, options.indexes)
    folder, made = build_fleet(options.work, pool_folder, options.indexes, options.documents, distinct)
    documents = options.indexes * options.documents
    figures: dict[str, Any] = {"made": made, "bytes_per_document": round(size_of(folder) / documents)}
    publish = partial(publish_number, folder, pool_folder, options.documents)
    if not options.keep_table:
        figures["refresh"] = measure_refresh(folder, publish, options.changed, distinct)
    figures["table_bytes_per_document"] = round(size_of(folder / FLEET) / documents, 1)
    manifest = read_fleet(IndexRoot(folder))
    figures["segments"] = [each.rows for each in manifest.segments] if manifest else []
    figures |= measure_queries(folder, plain, long)
    if options.compared:
        figures["against_all"] = {
            name: measure_agreement(folder, queries[: options.compared], Mode.HYBRID)
            for name, queries in (("plain", plain), ("long", long))
        }
        print(figures["against_all"], flush=True)
    return figures


def measure_large(options: argparse.Namespace, pool: Pool, plain: Sequence[str], long: Sequence[str]) -> dict[str, Any]:
    """One index."""
    folder, figures = build_large(options.work, pool, options.large)
    held_out = near_real_vectors(options.work, pool, options.large + options.queries)[options.large :]
    figures |= measure_recall(folder, held_out)
    print(figures, flush=True)
    return figures | measure_queries(folder, plain, long)


def measure_queries(folder: Path, plain: Sequence[str], long: Sequence[str]) -> dict[str, Any]:
    """Warm and cold, by mode and number of terms."""
    figures: dict[str, Any] = {}
    searcher = Searcher(IndexRoot(folder), EMBEDDER)
    for mode in Mode:
        for name, queries in (("plain", plain), ("long", long)):
            new, known = time_queries(searcher, queries, mode)
            figures[f"{name}_{mode.value}_ms"] = {"warm": asdict(known), "new": asdict(new)}
            print(name, mode.value, figures[f"{name}_{mode.value}_ms"], searcher.slow, flush=True)
    figures["cold_ms"] = time_cold(folder, long[0], Mode.HYBRID)
    print("cold", figures["cold_ms"], flush=True)
    return figures


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the indexes; kept")
    parser.add_argument("--pool", type=Path, help="index root of real packages [default: WORK/pool, built if missing]")
    parser.add_argument("--indexes", type=int, default=1_000)
    parser.add_argument("--documents", type=int, default=5_000, help="of each")
    parser.add_argument("--distinct", type=int, help="make only so many, and copy these under other names")
    parser.add_argument("--changed", type=int, default=30, help="indexes published anew before a second refresh")
    parser.add_argument("--large", type=int, default=200_000, help="documents of the one large index")
    parser.add_argument("--queries", type=int, default=25)
    parser.add_argument("--compared", type=int, default=10, help="queries that a search of all indexes answers, too")
    parser.add_argument("--only", choices=["fleet", "large"])
    parser.add_argument("--keep-table", action="store_true", help="ask the fleet table that is there")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    result = start_result("search")
    pool_folder = options.pool or options.work / "pool"
    if not IndexRoot(pool_folder).versions():
        build_pool(pool_folder)
    pool = load_pool(pool_folder)
    plain, long = (make_queries(pool, options.queries, terms=terms) for terms in (None, TERMS))
    kept = ("indexes", "documents", "distinct", "changed", "large", "queries", "compared")
    result["options"] = {name: getattr(options, name) for name in kept}
    result["pool_documents"] = len(pool.documents)
    result["terms"] = {
        name: round(float(np.mean([len(build_query(each).terms) for each in queries])), 1)
        for name, queries in (("plain", plain), ("long", long))
    }
    if options.only != "large":
        result["fleet"] = measure_fleet(options, pool_folder, plain, long)
    if options.only != "fleet":
        result["large"] = measure_large(options, pool, plain, long)
    print(json.dumps(result, indent=2))
    if not options.no_write:
        print(write_result(result))


if __name__ == "__main__":
    main()
