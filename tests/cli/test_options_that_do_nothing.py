"""Who gives an option that does nothing, or a place that is not there, is told so, and told what is wrong."""

import pytest

INVALID = 2


@pytest.fixture
def configured(run, environment):
    """Run a command with settings of which nothing is asked before its arguments are looked at."""
    settings = environment / "settings.toml"
    settings.write_text('network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "http://127.0.0.1:1"\n')
    settings.chmod(0o600)
    return lambda command, *arguments: run(command, "--config", settings, *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--search"], "--search does nothing without --provider"),
        (["--force"], "--force does nothing without --send"),
        (["--claim", "ab" * 32], "--claim does nothing without --send"),
        (["--send", "--claim", "xyz"], "not the id of a lock"),
        (["--send", "--claim", "ab" * 7], "not the id of a lock"),
    ],
)
def test_a_rescue_refuses_what_would_do_nothing(configured, arguments, told):
    ran = configured("rescue", *arguments)
    assert ran.code == INVALID
    assert told in " ".join(ran.err.split())


def test_a_rescue_names_the_settings_that_it_needs(run):
    assert "settings of bob and of the signer" in " ".join(run("rescue", "--help").out.split())


def test_a_copy_needs_its_folder(configured, environment):
    ran = configured("backup", environment / "nowhere" / "copy.db")
    assert ran.code == INVALID
    assert "there is no folder" in " ".join(ran.err.split())


def test_a_copy_that_is_not_there_is_not_mistrusted(configured, environment):
    ran = configured("restore", environment / "copy.db")
    assert ran.code == INVALID
    assert "there is no copy" in " ".join(ran.err.split())
