"""``layer2 backup`` beside a running service, and ``layer2 restore``."""

import json
import stat

import pytest

from layer2.cli._exit import ExitCode


@pytest.fixture
def settings(environment):
    file = environment / "layer2.toml"
    file.write_text('network = "embedded"\n[store]\nurl = "sqlite:///journal.sqlite3"\n')
    return file


@pytest.fixture
def signer(settings):
    """An account, whose key vouches for copies."""
    settings.write_text(f'{settings.read_text()}[signer]\nprivate_key = "{"11" * 32}"\n')
    settings.chmod(0o600)


def test_a_copy_is_taken_beside_a_service_and_restored_when_it_is_gone(start, run, signer, environment):
    service = start("run", "--json")
    assert json.loads(service.stdout.readline())["event"] == "ready", service.stderr.read()
    taken = run("backup", "copy.db", "--json")
    assert taken.code == 0, taken.err
    assert taken.json["swaps"] == 0
    assert taken.json["authenticated"] is True
    copy = environment / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert run("backup", "copy.db").code == ExitCode.STORAGE
    assert run("backup", "copy.db", "--force").code == 0
    assert "no lock" in run("backup", "other.db").out
    assert run("restore", "copy.db", "--replace").code == ExitCode.STORE_IN_USE
    service.terminate()
    service.communicate()

    refused = run("restore", "copy.db", "--json")
    assert refused.code == ExitCode.STORAGE
    assert "--replace" in refused.json["error"]["hint"]
    done = run("restore", "copy.db", "--replace", "--json")
    assert done.code == 0, done.err
    assert done.json["transfers"] == []
    assert done.json["authenticated"] is True
    assert (environment / done.json["moved_aside"]).is_file()
    assert run("transfers", "list", "--json").json == []


def test_a_copy_that_somebody_else_could_have_written_is_taken_on_demand_only(run, settings, environment):
    assert run("transfers", "resume").code == 0
    taken = run("backup", "copy.db", "--json")
    assert (taken.code, taken.json["authenticated"]) == (0, False)
    assert "No signer is configured" in taken.err
    (environment / "journal.sqlite3").unlink()
    refused = run("restore", "copy.db", "--json")
    assert refused.code == ExitCode.STORAGE
    assert refused.json["error"]["type"] == "UntrustedCopy"
    assert "--unauthenticated" in refused.json["error"]["hint"]
    settings.write_text(f'{settings.read_text()}[signer]\nprivate_key = "{"11" * 32}"\n')
    settings.chmod(0o600)
    assert run("restore", "copy.db").code == ExitCode.STORAGE
    done = run("restore", "copy.db", "--unauthenticated", "--json")
    assert (done.code, done.json["authenticated"]) == (0, False)
    assert "NOT AUTHENTICATED" in done.err


def test_a_store_that_was_moved_is_taken_over_where_it_is(run, settings, environment):
    assert run("restore", "--in-place").code == ExitCode.STORAGE
    assert not (environment / "journal.sqlite3").exists(), "an empty store must not stand for a lost one"
    assert run("transfers", "resume", "--json").code == 0
    (environment / "journal.sqlite3").rename(environment / "elsewhere.sqlite3")
    settings.write_text(settings.read_text().replace("journal", "elsewhere"))
    assert run("transfers", "resume").code == ExitCode.STORAGE
    assert run("restore", "--in-place", "--json").json["restored"] == 1
    assert run("transfers", "resume").code == 0


def test_a_copy_of_ones_own_store_is_none_of_the_providers(run, signer, environment):
    assert run("transfers", "resume").code == 0
    assert run("backup", "copy.db").code == 0
    assert run("backup", "copy of the provider.db", "--provider").code == 0
    for copy, right, wrong in (("copy.db", [], ["--provider"]), ("copy of the provider.db", ["--provider"], [])):
        refused = run("restore", copy, "--replace", "--json", *wrong)
        assert refused.code == ExitCode.STORAGE
        assert refused.json["error"]["type"] == "UntrustedCopy"
        assert "another kind of store" in refused.json["error"]["message"]
        assert run("restore", copy, "--replace", *right).code == 0


def test_what_to_restore_must_be_said(run, settings):
    assert run("restore").code == ExitCode.USAGE
    assert run("restore", "copy.db", "--in-place").code == ExitCode.USAGE
    assert run("restore", "--in-place", "--replace").code == ExitCode.USAGE
    assert run("restore", "--in-place", "--unauthenticated").code == ExitCode.USAGE


@pytest.mark.parametrize("command", [("backup", "copy.db"), ("restore", "copy.db")])
def test_a_store_in_memory_is_neither_copied_nor_restored(run, environment, command):
    (environment / "layer2.toml").write_text('network = "embedded"\n')
    done = run(*command)
    assert done.code == ExitCode.CONFIGURATION
    assert "in memory" in done.err
