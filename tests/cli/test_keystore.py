"""``layer2 keystore``: a key gets into an encrypted file, and onto no screen, argument list or foreign eye."""

import os
import pty
import stat
import termios
import time
import tomllib

import pytest

from layer2.cli._exit import ExitCode
from layer2.signers import LocalSigner

pytestmark = pytest.mark.slow

KEY = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
ACCOUNT = str(LocalSigner.from_hex(KEY).address)


@pytest.fixture
def password(environment):
    file = environment / "password"
    file.write_text("a password\n")
    file.chmod(0o600)
    return file


def test_a_new_key_serves_as_the_account_of_the_settings(run, environment, password):
    made = run("keystore", "new", "--password-file", password)
    assert made.code == 0
    file = environment / "keystore.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    address, _, settings = made.out.partition("\n")
    section = settings[settings.index("[signer]") :]
    assert tomllib.loads(section)["signer"]["keystore"] == str(file)
    (environment / "layer2.toml").write_text(f'network = "devnet"\n{section}')
    assert run("status", "--json").json["signer"] is True
    shown = run("keystore", "show", "--password-file", password, "--json").json
    assert shown == {"path": str(file), "address": address, "checked": True}
    before = file.read_bytes()
    again = run("keystore", "new", "--password-file", password, "--json")
    assert again.code == ExitCode.CONFIGURATION
    assert "there already" in again.json["error"]["message"]
    assert file.read_bytes() == before


def test_a_key_is_imported_from_a_file_or_from_standard_input(run, environment, password, monkeypatch):
    key = environment / "key"
    key.write_text(f"0x{KEY}\n")
    key.chmod(0o644)
    refused = run("keystore", "import", "--key-file", key, "--password-file", password)
    assert refused.code == ExitCode.CONFIGURATION
    assert "chmod 600" in refused.err
    assert "allow_readable_secrets" not in refused.err
    key.chmod(0o600)
    done = run("keystore", "import", "a.json", "--key-file", key, "--password-file", password, "--json")
    assert done.json == {"path": str(environment / "a.json"), "address": ACCOUNT}
    piped = run("keystore", "import", "b.json", "--key-file", "-", "--password-file", password, input=KEY)
    assert ACCOUNT in piped.out
    for shown in (done, piped):
        assert KEY not in shown.out + shown.err
    assert run("keystore", "show", "b.json").out.strip() == ACCOUNT


def test_what_is_no_key_is_refused_and_not_repeated(run, environment, password):
    done = run("keystore", "import", "--password-file", password, input=KEY[:-2])
    assert done.code == ExitCode.CONFIGURATION
    assert KEY[:-2] not in done.out + done.err
    assert not (environment / "keystore.json").exists()


def test_where_nobody_can_be_asked_the_options_are_named(run):
    for arguments in (("new",), ("import", "--key-file", "-"), ("show", "--check")):
        done = run("keystore", *arguments, "--json", input=KEY)
        assert done.code == ExitCode.USAGE
        assert "--password-file" in done.json["error"]["hint"]


def test_key_and_password_are_asked_for_without_being_shown(start, environment):
    ours, theirs = pty.openpty()
    process = start("keystore", "import", stdin=theirs, start_new_session=True)
    seen = b""
    for asked, answer in ((b"private key", KEY), (b"password of", "a secret word"), (b"Repeat", "a secret word")):
        while asked not in seen:
            seen += process.stderr.buffer.read1()
        while termios.tcgetattr(theirs)[3] & termios.ECHO:
            # What is typed before the terminal is hushed is thrown away.
            assert process.poll() is None
            time.sleep(0.01)
        os.write(ours, f"{answer}\n".encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    assert ACCOUNT in out
    for secret in (KEY, "a secret word"):
        assert secret not in out + err + seen.decode()
