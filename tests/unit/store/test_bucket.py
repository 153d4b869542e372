"""What only object storage does: answers that get lost, refusals, outages, and writers that nobody can see."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from seaweedfs import BUCKET, SECRET, seaweedfs
from store_parts import build_document, build_manifest, build_vectors

from summidx.cli import app
from summidx.disk import measure_indexes
from summidx.errors import StorageUnavailable, StoreError, UsageError
from summidx.index_uri import normal_index_root, parse_bucket_uri, refuse_other_roots
from summidx.settings import load_settings
from summidx.store import bucket, objects
from summidx.store.generations import IndexRoot
from summidx.store.pruning import sweep_index
from summidx.store.verification import read_whole

DOCUMENTS = [build_document("a.py"), build_document("a.py::f")]


def publish(root, *, expected=None, **values):
    manifest = build_manifest(DOCUMENTS, **values)
    with root.stage(manifest.name, manifest.generation) as staging:
        staging.write(DOCUMENTS, build_vectors(len(DOCUMENTS)), [])
        return root.publish(staging, manifest, expected_publish_id=expected)


def generations(root, name="repo"):
    return sorted(each.name for each in root.place.index(name).generations())


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server; an answer for which `drops` says so is not handed back."""

    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.drops = lambda method, path, n: False
        self.strip = ()
        self.puts_of_current = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.server.strip}
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if self.command == "PUT" and self.path.endswith("/CURRENT"):
            self.server.puts_of_current += 1
        if self.server.drops(self.command, self.path, self.server.puts_of_current):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the names are of http.server

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy(s3, monkeypatch):
    server = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    yield server
    server.shutdown()
    server.server_close()


class TestLostAnswers:
    def test_a_write_of_current_whose_answer_is_lost_is_no_lost_race(self, s3, proxy):
        root = IndexRoot(s3)
        proxy.drops = lambda method, path, n: method == "PUT" and path.endswith("/CURRENT") and n == 1
        assert publish(root)
        assert proxy.puts_of_current == 2, "it was sent again, and refused, for it is there"
        proxy.drops = lambda method, path, n: method == "PUT" and path.endswith("/CURRENT") and n == 3
        assert publish(root, publish_id="p2", expected="p1", commit="c2")
        assert root.read_manifest("repo").publish_id == "p2"
        assert generations(root) == ["g1.p1", "g1.p2"]

    def test_where_no_answer_ever_comes_current_tells(self, s3, proxy, monkeypatch):
        monkeypatch.setattr(objects, "MAX_RETRIES", 0)
        root = IndexRoot(s3)
        proxy.drops = lambda method, path, n: method == "PUT" and path.endswith("/CURRENT")
        assert publish(root)
        assert root.read_manifest("repo").publish_id == "p1"

    def test_where_nobody_knows_whether_it_was_published_its_objects_stay(self, s3, proxy, monkeypatch):
        monkeypatch.setattr(objects, "MAX_RETRIES", 0)
        root = IndexRoot(s3)
        proxy.drops = lambda method, path, n: path.endswith("/CURRENT") and n > 0
        with pytest.raises(StorageUnavailable):
            publish(root)
        proxy.drops = lambda method, path, n: False
        assert root.open("repo").table.count() == 2, "it was"
        assert read_whole(root, "repo").faults == ()

    def test_a_store_that_ignores_conditions_is_refused(self, s3, monkeypatch):
        def put_anyway(self, name, data, expected):
            self.put(name, data)
            return True

        monkeypatch.setattr(objects.Objects, "put_if", put_anyway)
        with pytest.raises(UsageError, match="ignores the conditions"):
            publish(IndexRoot(s3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            ("AWS_SECRET_ACCESS_KEY", "wrong", r"credentials are not good for that \(SignatureDoesNotMatch\)"),
            ("AWS_ACCESS_KEY_ID", "nobody", r"credentials are not good for that \(InvalidAccessKeyId\)"),
            (
                "AWS_ENDPOINT_URL",
                "http://127.0.0.1:9",
                "there is no connection; see that it runs, and AWS_ENDPOINT_URL",
            ),
        ],
    )
    def test_each_is_one_line_with_a_type_within_seconds(self, s3, monkeypatch, variable, value, told):
        from typer.testing import CliRunner

        monkeypatch.setenv(variable, value)
        began = time.monotonic()
        done = CliRunner().invoke(app, ["list", "--index-root", s3])
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: the object storage of {s3} at 127.0.0.1:")
        assert re.search(told, done.stderr)
        assert SECRET not in done.stderr
        assert time.monotonic() - began < 30

    def test_a_bucket_that_is_missing_is_told_and_not_made(self, s3):
        root = IndexRoot("s3://no-such-bucket/x")
        for call in (root.names, lambda: root.verify("repo", "key"), lambda: root.find_manifest("repo")):
            with pytest.raises(StorageUnavailable, match=r"no such bucket \(NoSuchBucket\)"):
                call()

    def test_a_store_that_is_away_is_no_damage_and_has_nothing_rebuilt(self, s3, proxy, monkeypatch):
        monkeypatch.setattr(objects, "MAX_RETRIES", 1)
        root = IndexRoot(s3)
        publish(root)
        table = root.open("repo").table
        for away in ("", "/CURRENT", "files.json", "documents.lance"):
            proxy.drops = lambda method, path, n, away=away: away in path
            for call in (lambda: root.verify("repo", "key"), lambda: read_whole(root, "repo")):
                with pytest.raises(StorageUnavailable, match="object storage"):
                    call()
        with pytest.raises(StorageUnavailable, match="object storage"):
            table.documents()
        proxy.drops = lambda method, path, n: False
        assert root.verify("repo", "key").manifest is not None
        assert read_whole(root, "repo").faults == ()


class TestWritersThatNobodySees:
    def test_what_was_uploaded_and_not_published_is_left_alone_until_it_is_old(self, s3, monkeypatch):
        root = IndexRoot(s3)
        publish(root)
        root.files("repo", build_manifest([], generation="g2", publish_id="p9")).write("skips.json", b"[]" * 5000)
        publish(root, publish_id="p2", expected="p1")
        sweep_index(root, "repo")
        assert generations(root) == ["g1.p1", "g1.p2", "g2.p9"]
        (use,) = measure_indexes(root)
        assert use.building_bytes == 10_000
        monkeypatch.setattr(bucket, "ABANDONED_AFTER_S", 0.0)
        (use,) = measure_indexes(root)
        assert (use.building_bytes, use.left_bytes) == (0, 10_000)
        sweep_index(root, "repo")
        assert generations(root) == ["g1.p1", "g1.p2"]

    def test_a_writer_that_slept_too_long_publishes_nothing(self, s3, monkeypatch):
        root = IndexRoot(s3)
        publish(root)
        monkeypatch.setattr(bucket, "PUBLISH_WITHIN_S", -1.0)
        with pytest.raises(StoreError, match="nothing was published"):
            publish(root, publish_id="p2", expected="p1")
        assert root.read_manifest("repo").publish_id == "p1"
        assert generations(root) == ["g1.p1"]

    def test_a_publish_beside_a_removal_is_not_lost(self, s3):
        root = IndexRoot(s3)
        publish(root)
        index = root.place.index("repo")
        before = index.read_current()
        publish(root, publish_id="p2", expected="p1")
        assert not index.remove_current(before)
        assert root.read_manifest("repo").publish_id == "p2"


WRITER = """
import sys
from store_parts import build_document, build_manifest, build_vectors
from summidx.store.generations import IndexRoot

root = IndexRoot(sys.argv[1])
documents = [build_document(f"{n}.py", search_text=f"word{n} " * 400) for n in range(3000)]
staging = root.stage("repo", "g2")
staging.write(documents, build_vectors(len(documents)), [])
print("staged", flush=True)
sys.stdin.readline()
manifest = build_manifest(documents, generation="g2", publish_id="p2", commit="c2")
print(root.publish(staging, manifest, expected_publish_id="p1"), flush=True)
"""


def test_a_server_that_is_killed_during_an_upload_and_comes_back_loses_nothing(tmp_path, monkeypatch):
    """The upload goes on where the server is back within the client's patience; the old index is whole meanwhile."""
    home = tmp_path / "s3"
    home.mkdir()
    with seaweedfs(home) as server:
        environment = {**server.environment, "XDG_CACHE_HOME": str(tmp_path / "local")}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{BUCKET}/killed"
        root = IndexRoot(uri)
        assert publish(root)
        command = [sys.executable, "-c", WRITER, uri]
        with subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout.readline() == "staged\n"
            writer.stdin.write("go\n")
            writer.stdin.flush()
            time.sleep(0.15)
            server.kill()
            time.sleep(1)
            server.start()
            assert writer.stdout.readline() == "True\n"
        assert root.read_manifest("repo").publish_id == "p2"
        assert read_whole(root, "repo").faults == ()


class TestURIs:
    @pytest.mark.parametrize(
        ("uri", "why"),
        [
            ("s3://key:hunter2@bucket/x", "leave user, password and options out"),
            ("s3://key@bucket/x", "leave user, password"),
            ("s3://bucket/x?secret=hunter2", "leave user, password and options out"),
            ("gs://bucket/x", "gs:// is not supported"),
            ("s3:///x", "no name of a bucket"),
            ("s3://bucket/a/../b", "cannot be used"),
            ("s3://bucket/a%2Fb", "cannot be used"),
            ("s3://bucket/a//b", "cannot be used"),
        ],
    )
    def test_what_is_no_bucket_and_prefix_is_refused_and_no_password_is_repeated(self, uri, why):
        with pytest.raises(UsageError, match=why) as caught:
            IndexRoot(uri)
        assert "hunter2" not in str(caught.value)

    def test_a_uri_has_one_spelling_and_is_no_path(self):
        assert normal_index_root("S3://bucket/a/b//") == "s3://bucket/a/b" == str(parse_bucket_uri("s3://bucket/a/b"))
        assert normal_index_root("s3://bucket/") == "s3://bucket"

    def test_an_endpoint_with_a_password_is_refused(self, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
        with pytest.raises(UsageError, match="without user and password") as caught:
            IndexRoot("s3://bucket/x")
        assert "hunter2" not in str(caught.value)

    def test_the_cache_is_on_this_machine_where_the_indexes_are_not(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        settings = load_settings({"index_root": "s3://bucket/x"})
        assert settings.cache_url == f"sqlite:///{tmp_path}/summidx/cache.sqlite"


class TestAllowedRoots:
    """What a run of a deployment may name, which anybody who may start one fills in."""

    @pytest.mark.parametrize(
        ("asked", "allowed"),
        [
            ("s3://ours/indexes", True),
            ("s3://ours/indexes/team", True),
            ("s3://ours/indexes-of-others", False),
            ("s3://ours", False),
            ("s3://others/x", False),
            ("s3://team/a", True),
            ("/srv/other", False),
            ("/srv/summary-index/../../etc", False),
            ("/srv/summary-index/a", True),
        ],
    )
    def test_only_what_the_settings_name_and_what_is_under_it(self, monkeypatch, asked, allowed):
        monkeypatch.setenv("SUMMIDX_INDEX_ROOT", "s3://ours/indexes")
        monkeypatch.setenv("SUMMIDX_ALLOWED_INDEX_ROOTS", "s3://team, /srv/summary-index")
        if allowed:
            assert load_settings({"index_root": asked}, from_api=True).index_root == asked
        else:
            with pytest.raises(UsageError, match="not among the index roots that this worker may write to"):
                load_settings({"index_root": asked}, from_api=True)
        assert load_settings({"index_root": asked}).index_root == asked, "who types a command may name any"

    def test_without_a_list_any_folder_and_no_bucket(self):
        refuse_other_roots("/anywhere", (), "summary-index")
        with pytest.raises(UsageError, match="allowed_index_roots"):
            refuse_other_roots("s3://bucket/x", (), "summary-index")
