"""The automations of deployments/automations, created on a real Prefect server, and watched to fire."""

import json
import queue
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parents[2] / "deployments" / "automations").glob("*.yaml"))
TEXTS = {path.stem: path.read_text() for path in FILES}
FIRES_WITHIN_S = 90
SOON_S = 10
"""In the place of hours and minutes: the least that Prefect takes."""


class Inbox(ThreadingHTTPServer):
    """Where notifications arrive."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _InboxHandler)
        self.messages = queue.Queue()


class _InboxHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def inbox():
    with Inbox() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def automations(api, inbox, prefect_env, tmp_path_factory):
    """All four, created by the command line; what waits for hours waits for seconds."""
    folder = tmp_path_factory.mktemp("automations")
    env = prefect_env | {"PREFECT_API_URL": api.url}
    code = (
        "import sys; from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        "told = {'subject': '{{subject}}', 'body': '{{body}}'}\n"
        "print(Block(name='ops', url=sys.argv[1], json_data=told).save('summidx', overwrite=True))"
    )
    url = f"http://127.0.0.1:{inbox.server_port}/"
    done = subprocess.run([sys.executable, "-c", code, url], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    block = str(uuid.UUID(done.stdout.strip().splitlines()[-1]))
    values = [yaml.safe_load(text.replace("NOTIFY_BLOCK_ID", block)) for text in TEXTS.values()]
    for value in values:
        value["trigger"]["within"] = min(value["trigger"]["within"], SOON_S)
    (folder / "all.yaml").write_text(yaml.safe_dump({"automations": values}))
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file", folder / "all.yaml"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    created = {each["name"]: each for each in api.post("/automations/filter", {"limit": 50})}
    yield created
    for each in created.values():  # other tests' runs are not theirs to crash
        api.delete(f"/automations/{each['id']}")


@pytest.fixture(scope="module")
def nightly(api):
    """The deployment, as far as an event tells of it."""
    flow = api.post("/flows/", {"name": "summary-index"})["id"]
    deployment = api.post(
        "/deployments/", {"name": "nightly", "flow_id": flow, "entrypoint": "flows.build.summary_index"}
    )
    return {"flow_id": flow, "deployment_id": deployment["id"]}


def start_run(api, nightly, *, of_deployment=True):
    of = nightly if of_deployment else {"flow_id": nightly["flow_id"]}
    return api.post("/flow_runs/", {**of, "name": f"run-{uuid.uuid4().hex[:6]}", "state": {"type": "RUNNING"}})


def set_state(api, run, **state):
    api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def next_message(inbox, subject):
    """The notification of that subject; others that come before it are passed over."""
    deadline = time.monotonic() + FIRES_WITHIN_S
    while True:
        message = inbox.messages.get(timeout=max(0.1, deadline - time.monotonic()))
        if message["subject"] == subject:
            return message["body"]


def test_each_is_accepted_as_it_is_but_for_the_block(automations):
    assert len(automations) == len(FILES) == 4
    assert all(each["enabled"] for each in automations.values())
    assert yaml.safe_load(TEXTS["no-nightly-for-26-hours"])["trigger"]["within"] == 26 * 3600
    assert sum("NOTIFY_BLOCK_ID" in text for text in TEXTS.values()) == 3


def test_a_run_that_failed_is_told_with_what_failed_and_where_to_look(api, automations, nightly, inbox):
    for name, of_deployment in (("Failed", True), ("Crashed", False)):
        run = start_run(api, nightly, of_deployment=of_deployment)
        set_state(api, run, type=name.upper(), name=name, message="1/120 repositories failed: alpha")
        body = next_message(inbox, f"{run['name']}: {name}")
        assert body.startswith("1/120 repositories failed: alpha\n")
        assert run["id"] in body


def test_a_nightly_that_is_late_or_cancelled_is_told_and_another_deployment_is_not(api, automations, nightly, inbox):
    other = api.post("/deployments/", {"name": "one", "flow_id": nightly["flow_id"]})["id"]
    quiet = start_run(api, {**nightly, "deployment_id": other})
    set_state(api, quiet, type="CANCELLED", name="Cancelled")
    for state in ({"type": "SCHEDULED", "name": "Late"}, {"type": "CANCELLED", "name": "Cancelled"}):
        run = start_run(api, nightly)
        set_state(api, run, **state)
        assert f"is {state['name']}." in next_message(inbox, f"{run['name']}: {state['name']}")
    assert not [each for each in list(inbox.messages.queue) if quiet["name"] in each["subject"]]


def test_no_nightly_for_too_long_is_told(automations, inbox):
    assert "has completed or failed for 26 hours" in next_message(inbox, "summidx: no nightly for 26 hours")


def test_a_run_whose_heartbeats_stop_is_crashed_and_one_that_ended_is_not(api, automations, nightly):
    zombie, ended = start_run(api, nightly), start_run(api, nightly)
    for run in (zombie, ended):
        heartbeat = {
            "occurred": datetime.now(UTC).isoformat(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run['id']}"},
            "related": [
                {
                    "prefect.resource.id": f"prefect.flow.{nightly['flow_id']}",
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": "summary-index",
                }
            ],
            "id": str(uuid.uuid4()),
        }
        send_event(api, heartbeat)
    set_state(api, ended, type="COMPLETED", name="Completed")
    deadline = time.monotonic() + FIRES_WITHIN_S
    while api.flow_run(zombie["id"])["state_type"] != "CRASHED":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert api.flow_run(zombie["id"])["state"]["message"].startswith("No heartbeat for ten minutes")
    assert api.flow_run(ended["id"])["state_type"] == "COMPLETED"


def send_event(api, event):
    """The API answers 204, without a body."""
    import urllib.request

    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api.url}/events", json.dumps([event]).encode(), headers)
    urllib.request.urlopen(request, timeout=60).close()
