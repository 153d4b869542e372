"""No secret of a repository is seen by what comes after reading it, and nothing else is taken for one."""

import importlib.metadata
import json
import time
from dataclasses import asdict
from pathlib import Path

import _pytest
import pytest
from hostile import TRAPS, Corpus, make_secrets, write_pem

from summidx.parsing import redaction
from summidx.parsing.redaction import redact
from summidx.records import SkipReason, SourceFile
from summidx.settings import ParseSettings

SECRETS = make_secrets(11)
PEM = write_pem(SECRETS["pem"])
RANDOM = "q7Vd0ZrT" + "x93LmWc2" + "bN5kYh8P"


def text_of(data: str | bytes, path: str = "a.py") -> str:
    return redact(SourceFile(path, data.encode() if isinstance(data, str) else data))[0].decode()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    corpus = Corpus(tmp_path_factory.mktemp("corpus"))
    TRAPS["secrets"].make(corpus, corpus.repos)
    return {
        str(path.relative_to(corpus.repos)): path.read_bytes() for path in corpus.repos.rglob("*") if path.is_file()
    }


def test_no_secret_reaches_a_unit_and_each_file_says_how_many_it_had(read, planted):
    parsed = read(planted)
    seen = json.dumps([asdict(unit) for unit in parsed.units])
    for kind, secret in SECRETS.items():
        for piece in (secret, secret[8:24], secret[-24:]):
            assert piece not in seen, kind
    assert "<redacted: github-pat>" in seen
    redacted = {skip.path: skip.detail for skip in parsed.skips if skip.reason is SkipReason.REDACTED}
    assert set(redacted) == set(planted)
    assert redacted["vendor/lib.py"] == "1 github-pat"
    assert "slack" in redacted["defaults.py"]


def test_lines_and_the_rest_of_the_code_stay_as_they_are(read, planted):
    def shape(parsed):
        return [(unit.id, unit.start_line, unit.end_line, unit.own_spans, unit.calls) for unit in parsed.units]

    assert shape(read(planted)) == shape(read(planted, ParseSettings(redact=False)))
    seen = json.dumps([asdict(unit) for unit in read(planted, ParseSettings(redact=False)).units])
    assert SECRETS["github"] in seen, "what is not taken out is seen, or the test above shows nothing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'K = "{SECRETS["aws"]}"\n', 'K = "<redacted: aws-access-key>"\n'),
        (
            "postgres://admin:hunter2@db.example.com/x\n",
            "postgres://admin:<redacted: password-in-url>@db.example.com/x\n",
        ),
        (f"API_KEY={RANDOM}\n", "API_KEY=<redacted: assigned-secret>\n"),
        (f'"access_key": "{RANDOM}",\n', '"access_key": "<redacted: assigned-secret>",\n'),
        (f'P = """\n  {PEM[:900]}', 'P = """\n  <redacted: private-key>'),
    ],
)
def test_what_the_scanner_leaves_out_is_taken_out_too(text, expected):
    found = text_of(text)
    assert found.startswith(expected)
    assert found.count("\n") == text.count("\n")
    assert PEM[100:120] not in found


@pytest.mark.parametrize(
    "text",
    [
        f"sha256 = '{'9f86d081884c7d65' * 4}'\n",
        "commit 54f9363b1ad9e1ac34c3ad49f45e2b4b7ffd21c2\n",
        'integrity = "sha512-9i3FLZQ8Q0p2Pp6V2Sj7q2g0XrO5N8i8i3R7j1Zc0J0l4o8w=="\n',
        "UUID = '123e4567-e89b-12d3-a456-426614174000'\n",
        "token = tokenizer.get_next_token(position)\n",
        'secret = os.environ["CLIENT_SECRET_OF_THE_APPLICATION"]\n',
        "password: str = field(default_factory=generate_password)\n",
        "see https://example.org:8080/a@b and ssh://git@example.org:22/x\n",
        "DATABASE_URL=postgres://$USER:${PASSWORD}@host/db\n",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_only_looks_random_stays(text):
    assert redact(SourceFile("a.py", text.encode())) == (text.encode(), None)


def test_real_code_stays():
    files = list(Path(_pytest.__file__).parent.rglob("*.py"))
    assert len(files) > 60
    assert [path.name for path in files if redact(SourceFile(path.name, path.read_bytes()))[1]] == []


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError])
def test_a_file_that_cannot_be_searched_is_emptied(error, read_by_id, monkeypatch):
    class Broken:
        def scan(self, text, *, timeout):
            raise error("too slow")

    monkeypatch.setattr(redaction, "_scanner", Broken)
    data, skip = redact(SourceFile("a.py", b"x = 1\n"))
    assert data == b""
    assert skip.reason is SkipReason.REDACTED
    assert "could not be searched" in skip.detail


def test_what_nearly_is_a_secret_costs_no_more_than_its_length(tmp_path):
    corpus = Corpus(tmp_path)
    TRAPS["near-secrets"].make(corpus, tmp_path)
    redact(SourceFile("a.py", b""))  # loads the rules
    for path in sorted(tmp_path.iterdir()):
        before = time.thread_time()
        redact(SourceFile(path.name, path.read_bytes()))
        assert time.thread_time() - before < 10, path.name


def test_another_scanner_is_another_index_version():
    assert importlib.metadata.version("kingfisher-secret-scanner") == redaction.SCANNER_VERSION, (
        "other rules make other rows: move keys.INDEX_VERSION and SCANNER_VERSION"
    )
