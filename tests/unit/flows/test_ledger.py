"""A server that is behind is waited for, one that has lost events is told the states, and neither fails the run."""

from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed, Crashed, Failed, Running

from flows import ledger


class Recorder:
    """Stands for the API of a server that writes down `per_look` task runs between two looks, and never the lost."""

    def __init__(self, ids, *, per_look, lost=(), conflicts=(), state=None) -> None:
        self.state = state or Completed()
        self.waiting = [each for each in ids if each not in lost]
        self.runs = {}
        self.per_look = per_look
        self.conflicts = set(conflicts)
        self.created, self.set = [], []
        self.rows = self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self):
        for each in self.waiting[: self.per_look]:
            self.runs[each] = SimpleNamespace(id=each, state=self.state)
        del self.waiting[: self.per_look]

    def read_task_runs(self, *, task_run_filter, limit, offset=0):
        found = [self.runs[each] for each in task_run_filter.id.any_ if each in self.runs]
        if task_run_filter.state is not None:
            found = [each for each in found if each.state.is_final()]
        rows = found[offset : offset + limit]
        self.rows += len(rows)
        self.asked += 1
        return rows

    def create_task_run(self, task, flow_run_id, dynamic_key, *, id, name):  # noqa: A002 - Prefect's name
        if id in self.conflicts:  # its event comes in between the question and this
            self.runs[id] = SimpleNamespace(id=id, state=Running())
            response = httpx.Response(409, request=httpx.Request("POST", "http://api/task_runs/"))
            raise PrefectHTTPStatusError("conflict", request=response.request, response=response)
        self.created.append(id)

    def set_task_run_state(self, task_run_id, state, *, force):
        self.set.append(task_run_id)


@pytest.fixture
def settle(monkeypatch):
    def run(ids, *, ended=(), **server):
        recorder = Recorder(ids, **server)
        now = [0.0]

        def sleep(seconds):
            now[0] += seconds
            recorder.write()

        monkeypatch.setattr(ledger, "get_client", lambda **_: recorder)
        monkeypatch.setattr(ledger, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        ledger.settle(uuid4(), None, {each: ("name", dict(ended).get(each, Completed())) for each in ids})
        return recorder, now[0]

    return run


def test_a_server_that_is_far_behind_is_waited_for_as_long_as_it_goes_on_writing(settle):
    ids = [uuid4() for _ in range(2000)]
    recorder, seconds = settle(ids, per_look=25)
    assert seconds > 5 * ledger.RECORDED_WITHIN_S
    assert (recorder.created, recorder.set) == ([], [])
    assert recorder.rows < len(ids), "they are counted, not read"
    assert recorder.asked < 4 * seconds, "each question is work for a server that is behind"


def test_what_a_server_has_lost_is_told_to_it_once_it_has_stopped_writing(settle):
    ids = [uuid4() for _ in range(450)]
    recorder, seconds = settle(ids, per_look=100, lost=ids[7:9])
    assert recorder.created == recorder.set == ids[7:9]
    assert ledger.RECORDED_WITHIN_S < seconds < 3 * ledger.RECORDED_WITHIN_S


def test_what_was_lost_with_its_worker_is_crashed_though_the_worker_says_later_that_it_failed(settle):
    ids = [uuid4() for _ in range(5)]
    recorder, _ = settle(ids, per_look=5, state=Failed(), ended={ids[3]: Crashed()})
    assert (recorder.created, recorder.set) == ([], [ids[3]])


def test_a_task_run_whose_event_comes_at_the_last_moment_does_not_fail_the_run(settle):
    ids = [uuid4() for _ in range(3)]
    recorder, _ = settle(ids, per_look=3, lost=ids[:2], conflicts=ids[:1])
    assert recorder.created == ids[1:2]
    assert recorder.set == ids[:2]
