"""The log of a run: its files, where the disk is no longer willing too, and what the Prefect UI gets of it."""

import logging
import threading
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from parts import require_part
from prefect.context import TaskRunContext

from flows import logs
from flows.logs import CHARS_IN_UI, LINES_IN_UI, LogFile, TaskLog, log_file


def test_a_disk_that_refuses_a_line_costs_that_line_and_nothing_is_said(capfd):
    require_part("/dev/full", present=Path("/dev/full").exists(), how="run on Linux")
    handler = LogFile("/dev/full")
    log = logging.getLogger("summidx.test_logs")
    log.addHandler(handler)
    try:
        log.warning("no room")
    finally:
        log.removeHandler(handler)
        handler.close()
    assert capfd.readouterr().err == ""


@pytest.fixture
def in_task():
    """Run a block as the task of a repository."""

    @contextmanager
    def within(name):
        task_run = SimpleNamespace(id=uuid4(), flow_run_id=uuid4(), name=name)
        context = TaskRunContext.model_construct(task_run=task_run, parameters={"name": name})
        token = TaskRunContext.__var__.set(context)
        try:
            yield task_run
        finally:
            TaskRunContext.__var__.reset(token)

    return within


@pytest.fixture
def sent(monkeypatch):
    """What would go to the Prefect API."""
    messages = []
    monkeypatch.setattr("prefect.logging.handlers.emit_api_log", messages.append)
    return messages


@pytest.fixture
def log():
    handler = TaskLog()
    log = logging.getLogger("summidx.test_logs")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)


def test_what_is_said_of_a_repository_goes_to_its_task_from_whatever_thread(in_task, sent, log):
    with in_task("alpha") as alpha:
        log.info("of alpha")
        in_loop = copy_context()
    with in_task("beta") as beta:
        log.info("of beta")
        thread = threading.Thread(target=in_loop.run, args=(log.info, "of alpha, in another thread"))
        thread.start()
        thread.join()
    log.info("of nobody")
    assert [(each["message"], each["task_run_id"]) for each in sent] == [
        ("of alpha", str(alpha.id)),
        ("of beta", str(beta.id)),
        ("of alpha, in another thread", str(alpha.id)),
    ]


def test_a_repository_cannot_flood_the_ui_nor_forge_a_line(in_task, sent, log):
    with in_task("loud"):
        for n in range(LINES_IN_UI + 50):
            log.warning("%d\n\x1b[2Jforged %s", n, "x" * 10_000)
    with in_task("quiet"):
        log.info("still heard")
    assert len(sent) == LINES_IN_UI + 2
    assert sent[-2]["message"] == "more is in the worker's log file"
    assert sent[-1]["message"] == "still heard"
    assert all(len(each["message"]) <= CHARS_IN_UI + 4 for each in sent)
    assert sent[0]["message"].startswith(r"0\n\x1b[2Jforged x")


def test_news_of_the_server_is_about_no_repository(in_task, sent, log):
    with in_task("alpha"):
        log.warning("the server is away", extra={"server": "away"})
    assert sent == []


def test_a_line_in_a_file_begins_with_its_repository_and_files_are_rotated(in_task, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "FILE_BYTES", 2_000)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = logging.getLogger("summidx.test_logs")
    with log_file(str(tmp_path), "worker-1") as path, in_task("al\npha"):
        for n in range(200):
            log.info("line %d", n)
    assert path.read_text().splitlines()[-1].endswith(r"summidx.test_logs: [al\npha] line 199")
    kept = sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(path.name))
    assert kept == [path.name, *(f"{path.name}.{n}" for n in range(1, 5))]
    assert all(each.stat().st_size <= 2_000 for each in tmp_path.glob("*.log*"))
