"""What every command has in common: exit codes, JSON, errors without stack traces, settings."""

import stat
import sys
from contextlib import contextmanager

import pytest

from layer2 import errors
from layer2.cli._cli import Cli, program
from layer2.cli._exit import ExitCode, code_for


def test_the_help_names_every_command_and_the_exit_codes(run):
    shown = run("--help")
    assert shown.code == 0
    for name in [
        "demo",
        "init",
        "doctor",
        "status",
        "balance",
        "invoice",
        "pay",
        "transfer",
        "transfers",
        "run",
        "proof",
        "contract",
        "provider",
        "devnet",
    ]:
        assert name in shown.out
    assert "130 interrupted" in " ".join(shown.out.split())


@pytest.mark.parametrize(
    "group", ["invoice", "transfers", "proof", "contract", "provider", "devnet", "demo", "transfer", "pay", "init"]
)
def test_every_group_has_help(run, group):
    assert run(group, "--help").code == 0


def _commands(app, prefix=()):
    for found in app.registered_commands:
        yield (*prefix, found.name or found.callback.__name__)
    for group in app.registered_groups:
        yield from _commands(group.typer_instance, (*prefix, group.name or group.typer_instance.info.name))


def test_every_command_takes_json_config_and_debug(run):
    from layer2.cli._app import app

    commands = list(_commands(app))
    assert len(commands) > 20
    for command in commands:
        shown = " ".join(run(*command, "--help").out.split())
        for option in ("--json", "--config", "--debug"):
            assert option in shown, command


def test_every_error_has_an_exit_code_of_its_kind():
    expected = {errors.Layer2Error, errors.AsyncRuntimeError}
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert (code_for(kind("x")) is ExitCode.UNEXPECTED) == (kind in expected), name
    assert code_for(errors.SwapRefunded("x")) is ExitCode.REFUNDED
    assert code_for(errors.StoreInUse("x")) is ExitCode.STORE_IN_USE
    failures = {"bob": errors.NodeConnectionError("x")}
    assert code_for(errors.InitializationError("x", failures=failures)) is ExitCode.CONNECTION


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("balance",),
        ("doctor",),
        ("run",),
        ("transfers", "list"),
        ("transfers", "resume"),
        ("transfer", "bob", "lightning", "1000", "--yes"),
        ("contract", "check"),
        ("provider", "serve"),
        ("invoice", "create", "5"),
    ],
)
def test_with_nothing_configured_a_command_says_how_to_begin(run, arguments):
    done = run(*arguments)
    assert done.code == ExitCode.CONFIGURATION
    assert "layer2 init" in done.out + done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("transfer", "bob", "lightning", "many"),
        ("transfer", "bob", "lightning"),
        ("transfer", "bob", "bob", "5"),
        ("transfer", "bob", "moon", "5"),
        ("transfer", "bob", "lightning", "0"),
        ("transfer", "bob", "lightning", str(2**64)),
        ("init", "--network", "moon"),
        ("invoice", "decode", "lnbc1nonsense"),
        ("invoice", "lookup", "abc"),
        ("pay", "nobody", "--amount", "5"),
        ("pay", "satoshi@example.com"),
        ("transfers", "list", "--state", "lost"),
        ("transfers", "list", "--limit", "0"),
    ],
)
def test_an_argument_that_cannot_be_right_is_code_2(run, environment, arguments):
    (environment / "layer2.toml").write_text('network = "embedded"\n')
    assert run(*arguments).code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--timeout", "nan"),
        ("--timeout", "-1"),
        ("--proof", ""),
        ("--proof", "."),
        ("--proof", "layer2.toml/proof.json"),
        ("--proof", "link.json"),
        ("--proof", "taken.json"),
        ("--proof", f"{'x' * 300}.json"),
    ],
)
def test_an_option_of_a_transfer_that_cannot_be_right_is_refused_before_anything_is_begun(
    run, environment, option, value
):
    (environment / "layer2.toml").write_text('network = "embedded"\n')
    (environment / "link.json").symlink_to("elsewhere.json")
    (environment / "taken.trusted.json").mkdir()
    done = run("transfer", "bob", "lightning", "20000", "--yes", "--json", option, value)
    assert done.code == ExitCode.USAGE
    (error,) = (line["error"] for line in done.lines)
    assert (error["money_may_have_moved"], error["fields"]["field"]) == (False, option)


def test_an_error_is_json_for_programs_and_text_for_people(run):
    done = run("invoice", "decode", "lnbc1nonsense", "--json")
    error = done.json["error"]
    assert error["type"] == "InvoiceError"
    assert error["exit_code"] == done.code == ExitCode.USAGE
    assert error["money_may_have_moved"] is False
    assert error["message"] in done.err


@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (2**53 - 1, 2**53 - 1), (2**53, str(2**53)), (True, True), ("5", "5")]
)
def test_fields_of_an_error_are_numbers_as_far_as_every_parser_keeps_them(run, environment, monkeypatch, value, shown):
    def broken(_):
        raise errors.InsufficientFunds("not enough", needed=value)

    (environment / "layer2.toml").write_text('network = "embedded"\n')
    monkeypatch.setattr("layer2.cli._status.read_transfers", broken)
    found = run("status", "--json").json["error"]["fields"]["needed"]
    assert (found, type(found)) == (shown, type(shown))


@pytest.mark.parametrize(
    ("arguments", "named", "field"),
    [
        (("nothing",), "nothing", None),
        (("status", "--nope"), "--nope", "--nope"),
        (("invoice", "nothing"), "nothing", None),
        (("transfer", "bob", "lightning"), "amount", "amount"),
        (("transfer", "bob", "lightning", "many"), "amount", "amount"),
        (("transfer", "bob", "lightning", "5", "6"), "6", None),
        (("transfers", "list", "--limit", "0"), "limit", "limit"),
        (("init", "--network", "moon"), "moon", None),
    ],
)
def test_a_wrong_use_is_json_for_programs(run, arguments, named, field):
    done = run(*arguments, "--json")
    error = done.json["error"]
    assert error["type"] == "UsageError"
    assert error["exit_code"] == done.code == ExitCode.USAGE
    assert named in error["message"]
    assert error["fields"].get("field") == field
    assert "--help" in error["hint"]
    assert error["money_may_have_moved"] is False
    assert error["message"] in done.err
    people = run(*arguments)
    assert people.code == ExitCode.USAGE
    assert people.out == ""
    assert "Usage" in people.err


def test_what_looks_like_the_option_after_the_options_is_an_argument(run):
    done = run("invoice", "decode", "--", "--json")
    assert done.code == ExitCode.USAGE
    assert done.out == ""


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_has_a_trace_only_with_debug(run, environment, monkeypatch, debug):
    def broken(config):
        raise RuntimeError("the disk \x1b[31m is on fire")

    monkeypatch.setattr("layer2.cli._status.read_transfers", broken)
    (environment / "layer2.toml").write_text('network = "embedded"\n')
    done = run("status", "--json", *(["--debug"] if debug else []), trace=debug)
    assert done.code == ExitCode.UNEXPECTED
    assert ("Traceback" in done.err) == debug
    assert "RuntimeError" in done.json["error"]["message"]
    if not debug:
        assert "\x1b" not in done.err
        assert "--debug" in done.json["error"]["hint"]


def test_settings_are_written_once_and_for_the_owner_only(run, environment):
    assert run("init", "--network", "devnet").code == 0
    file = environment / "layer2.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    again = run("init", "--network", "bob")
    assert again.code == ExitCode.CONFIGURATION
    assert "--force" in again.err
    assert file.read_text() == before
    file.chmod(0o644)
    assert run("init", "--network", "bob", "--force", "--json").json["network"] == "bob"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() != before


def test_written_settings_are_read_back(run):
    written = run("init", "--network", "embedded")
    assert written.code == 0
    assert "filled in" not in written.err + written.out
    assert run("status", "--json").json["network"] == "embedded"


def test_a_printed_command_calls_the_program_as_it_was_called(environment, monkeypatch):
    for folder in (".venv/bin", "on path"):
        (environment / folder).mkdir(parents=True)
        (environment / folder / "layer2").touch(0o755)
    monkeypatch.setenv("PATH", str(environment / "on path"))
    for called, shown in (
        (".venv/bin/layer2", ".venv/bin/layer2"),
        ("on path/layer2", "layer2"),
        ("site/layer2/__main__.py", f"{sys.executable} -m layer2"),
    ):
        monkeypatch.setattr(sys, "argv", [called, "demo"])
        assert program() == shown


def test_settings_with_a_mistake_name_the_key(run, environment):
    (environment / "layer2.toml").write_text('network = "bob"\n[bob]\nrpcurl = "x"\n')
    done = run("status", "--json")
    assert done.code == ExitCode.CONFIGURATION
    assert "rpcurl" in done.json["error"]["message"]


def test_a_named_settings_file_is_used(run, environment):
    (environment / "other.toml").write_text('network = "devnet"\n')
    assert run("status", "--config", "other.toml", "--json").json["network"] == "devnet"
    assert run("status", "--config", "missing.toml").code == ExitCode.CONFIGURATION


def test_versions(run):
    assert set(run("version", "--json").json) == {"layer2", "python"}
    shown = run("version").out
    assert "Python" in shown
    option = run("--version")
    assert (option.code, option.out) == (0, shown)


def test_exit_codes_are_the_same_with_json(program, environment):
    """Programs read the code of a process, which is another way out than the one of the tests above."""
    assert program("version", "--json").code == 0
    assert program("status", "--json").code == ExitCode.CONFIGURATION
    done = program("status", "--nope", "--json")
    assert (done.code, done.json["error"]["exit_code"]) == (ExitCode.USAGE, ExitCode.USAGE)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("balance",), "asking the layers"),
        (("contract", "check"), "reading the contract"),
        (("invoice", "create", "5"), "making the invoice"),
        (("invoice", "lookup", "00" * 32), "looking up the invoice"),
        (("backup", "copy.db"), "copying the store"),
        (("restore", "--in-place"), "restoring the store"),
    ],
)
def test_whoever_waits_sees_what_for(run, environment, monkeypatch, arguments, shown):
    (environment / "layer2.toml").write_text('network = "embedded"\n[store]\nurl = "sqlite:///journal.sqlite3"\n')
    assert run("transfers", "resume").code == 0
    seen = []

    @contextmanager
    def working(_cli, text):
        seen.append(text)
        yield

    monkeypatch.setattr(Cli, "working", working)
    run(*arguments)
    assert shown in seen


def test_completion_is_offered(program, monkeypatch):
    # Which shell runs the tests is chance, and not every one can complete.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = program("--show-completion", "bash")
    assert shown.code == 0
    assert "layer2" in shown.out


def test_a_missing_extra_is_named(environment, program):
    (environment / "uvicorn.py").write_text("raise ModuleNotFoundError('no uvicorn', name='uvicorn')\n")
    (environment / "layer2.toml").write_text('network = "devnet"\n')
    done = program("provider", "serve", "--json")
    assert done.code == ExitCode.CONFIGURATION
    assert "layer2[provider]" in done.json["error"]["hint"]
