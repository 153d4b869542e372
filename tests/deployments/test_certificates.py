"""`deployments/make-certificates`: certificates that Dask accepts, keys that only their owner reads."""

import shutil
import ssl
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from parts import require_part

SCRIPT = Path(__file__).parents[2] / "deployments" / "make-certificates"


def make(folder, *more, code=0):
    require_part("openssl", present=shutil.which("openssl") is not None, how="apt-get install openssl")
    done = subprocess.run([SCRIPT, folder, *more], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def shake_hands(client, server):
    """A TLS handshake in memory, each side with its certificate and the authority that it trusts, as Dask does it."""
    ends = []
    for purpose, (authority, certificate) in ((ssl.Purpose.SERVER_AUTH, client), (ssl.Purpose.CLIENT_AUTH, server)):
        context = ssl.create_default_context(purpose, cafile=authority / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        context.load_cert_chain(certificate.with_suffix(".pem"), certificate.with_name(f"{certificate.name}-key.pem"))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = purpose is ssl.Purpose.CLIENT_AUTH
        ends.append((context.wrap_bio(incoming, outgoing, server_side=server_side), incoming, outgoing))
    (ours, ours_in, ours_out), (theirs, theirs_in, theirs_out) = ends
    for _ in range(4):
        for end in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
        theirs_in.write(ours_out.read())
        ours_in.write(theirs_out.read())
    assert ours.cipher()
    assert theirs.cipher()


@pytest.mark.parametrize(("client", "server"), [("client", "scheduler"), ("worker", "scheduler"), ("client", "worker")])
def test_any_two_accept_each_other(client, server, tmp_path):
    make(tmp_path)

    shake_hands((tmp_path, tmp_path / client), (tmp_path, tmp_path / server))


def test_those_of_another_authority_are_refused(tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    make(ours)
    make(other)

    with pytest.raises(ssl.SSLError):
        shake_hands((other, other / "client"), (ours, ours / "scheduler"))


def test_keys_are_read_by_their_owner_only(tmp_path):
    make(tmp_path / "new" / "tls")

    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "tls").glob("*.pem")}
    assert set(made) == {f"{who}{what}.pem" for who in ("ca", "scheduler", "worker", "client") for what in ("", "-key")}
    assert not {mode & 0o077 for mode in made.values()} - {0}


def test_again_it_signs_new_ones_with_the_same_authority(tmp_path):
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pem")}
    make(tmp_path, "30")

    after = {path.name: path.read_bytes() for path in tmp_path.glob("*.pem")}
    assert {name for name in after if after[name] == before[name]} == {"ca.pem", "ca-key.pem"}
    dates = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "worker.pem", "-noout", "-checkend", str(31 * 86400)],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert dates.returncode == 1, "it expires within 31 days"


def test_without_its_key_an_authority_signs_nothing_and_is_not_replaced(tmp_path):
    make(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    before = (tmp_path / "ca.pem").read_bytes()

    assert "ca-key.pem" in make(tmp_path, code=1).stderr
    assert (tmp_path / "ca.pem").read_bytes() == before
