"""Sources, checks and secrets of the configuration."""

import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from settings_files import refused, write

from layer2._config_template import template
from layer2.addresses import EvmAddress
from layer2.assets import BTC, ETH, AssetId
from layer2.config import (
    AssetConfig,
    BobConfig,
    ConnectionPoolConfig,
    DepthRule,
    Layer2Config,
    LightningConfig,
    ProviderConfig,
    Secret,
    SignerConfig,
    SwapConfig,
)
from layer2.connect import provider_store_url
from layer2.errors import AssetError, ConfigurationError
from layer2.transactions import Depth

CANARY = "canary-5ecre7"
TOKEN = "0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"


def test_nothing_configured_names_the_two_ways_on(home):
    error = refused(None, "layer2 init", "Layer2Config.embedded()", environ=home)
    assert "nothing is configured" in error.message


def test_the_file_is_looked_for_in_the_documented_order(home, tmp_path):
    user = write(tmp_path / "home/.config/layer2/layer2.toml", "max_concurrency = 1")
    assert Layer2Config.load(environ=home).max_concurrency == 1
    write(tmp_path / "layer2.toml", "max_concurrency = 2")
    assert Layer2Config.load(environ=home).max_concurrency == 2
    named = write(tmp_path / "named.toml", "max_concurrency = 3")
    assert Layer2Config.load(environ={**home, "LAYER2_CONFIG": str(named)}).max_concurrency == 3
    explicit = write(tmp_path / "explicit.toml", "max_concurrency = 4")
    assert Layer2Config.load(explicit, environ={**home, "LAYER2_CONFIG": str(named)}).max_concurrency == 4
    xdg = {**home, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    (tmp_path / "layer2.toml").unlink()
    write(tmp_path / "xdg/layer2/layer2.toml", "max_concurrency = 5")
    assert Layer2Config.load(environ=xdg).max_concurrency == 5
    assert user.exists()


def test_a_named_file_must_exist(home, tmp_path):
    error = refused(None, "there is no settings file", path=tmp_path / "no.toml", environ=home)
    assert error.path == str(tmp_path / "no.toml")
    refused(None, "LAYER2_CONFIG", environ={**home, "LAYER2_CONFIG": "no.toml"})


def test_variables_win_over_the_file_and_arguments_over_both(home, tmp_path):
    file = write(
        tmp_path / "layer2.toml",
        'max_concurrency = 1\n[bob]\nrpc_url = "https://file"\nchain = "bob-sepolia"\nmax_unconfirmed_per_key = 3',
    )
    environ = {
        **home,
        "LAYER2_MAX_CONCURRENCY": "2",
        "LAYER2_BOB__RPC_URL": "https://environment",
        "LAYER2_BOB__CHAIN": "808813",
        "LAYER2_ALLOW_READABLE_SECRETS": "true",
        "LAYER2_ASSETS__tBTC__CONTRACT": TOKEN,
        "LAYER2_SWAP__DEPTH": '[{ depth = "safe" }]',
        "LAYER2_LND": "/usr/bin/lnd",
    }
    config = Layer2Config.load(file, environ=environ, bob={"max_unconfirmed_per_key": 5})
    assert config.max_concurrency == 2
    assert config.allow_readable_secrets is True
    assert config.bob == BobConfig(rpc_url="https://environment", chain=808813, max_unconfirmed_per_key=5)
    assert config.assets == {"tBTC": AssetConfig(contract=EvmAddress.parse(TOKEN))}
    assert config.depth_policy(1).depth is Depth.SAFE
    pool = ConnectionPoolConfig(max_connections=3)
    assert Layer2Config.load(file, environ=home, connection_pool=pool).connection_pool == pool


@pytest.mark.parametrize(
    ("text", "key", "needles"),
    [
        ("max_concurency = 5", "max_concurency", ["did you mean max_concurrency"]),
        ('[bob]\nrpc_ulr = "http://x"', "bob.rpc_ulr", ["did you mean rpc_url"]),
        ("[bobb]", "bobb", ["did you mean bob"]),
        ("[zzz]", "zzz", ["known here: network"]),
        ('max_concurrency = "5"', "max_concurrency", ["whole number", "str '5'"]),
        ("max_concurrency = 5.0", "max_concurrency", ["whole number", "float"]),
        ("max_concurrency = true", "max_concurrency", ["whole number", "bool"]),
        ("max_concurrency = 0", "max_concurrency", ["between 1 and"]),
        ("allow_readable_secrets = 1", "allow_readable_secrets", ["true or false"]),
        ("bob = 5", "bob", ["a section"]),
        ("[bob]\nrpc_url = 5", "bob.rpc_url", ["text"]),
        ('[bob]\nrpc_url = "ftp://x"', "bob.rpc_url", ["https://"]),
        ('[bob]\nchain = "bobb"', "bob.chain", ["none of bob, bob-sepolia"]),
        ("[bob]\nchain = 30", "bob.rpc_url", ["needed for chain 30"]),
        ("[bob]\nchain = 1.5", "bob.chain", ["text or a whole number"]),
        (f'[bob]\nhtlc_contract = "{TOKEN[:-1]}d"', "bob.htlc_contract", ["checksum"]),
        ('network = "bitcoin"', "network", ["'bob' or 'bob-sepolia'"]),
        ('[lightning]\nrest_url = "https://x"', "lightning.macaroon", ["is missing"]),
        ('[lightning]\nrest_url = "https://x"\nmacaroon = 5', "lightning.macaroon", ["file", "env"]),
        ('[lightning]\nrest_url = "https://x"\nmacaroon = {fil = "x"}', "lightning.macaroon", ["file"]),
        ('[lightning]\nrest_url = "https://x"\nmacaroon = {file = "none"}', "lightning.macaroon", ["cannot read"]),
        ('[lightning]\nrest_url = "https://x"\nmacaroon = {env = "NONE"}', "lightning.macaroon", ["NONE is not set"]),
        (
            '[lightning]\nrest_url = "https://x"\nmacaroon = "00"\ntls_fingerprint = "abc"',
            "lightning.tls_fingerprint",
            ["64 hexadecimal"],
        ),
        ("[assets.X]\ndecimals = 8", "assets.X.contract", ["is missing"]),
        (
            f'[assets.X]\ncontract = "{TOKEN}"\ndecimals = 99',
            "assets.X.decimals",
            ["assets.X.decimals must be between"],
        ),
        ("[swap]\ndepth = 5", "swap.depth", ["a list"]),
        ('[[swap.depth]]\ndepth = "deep"', "swap.depth.0.depth", ["'included' or"]),
        ('[[swap.depth]]\ndepth = "safe"\nup_to = 5', "swap.depth", ["only its last"]),
        ('[[swap.depth]]\ndepth = "safe"\nup_to = 0', "swap.depth.0.up_to", ["swap.depth.0.up_to must be between"]),
        ("[signer]", "signer", ["either keystore or private_key"]),
        ('[signer]\nkeystore = "k"', "signer.password", ["password"]),
        ('[signer]\nprivate_key = "0x1234"', "signer.private_key", ["64 hexadecimal digits"]),
        ("[provider]\nmin_amount = 5000\nmax_amount = 4000", "provider.min_amount", ["above"]),
        ("[provider]\nmin_amount = 999", "provider.min_amount", ["1000"]),
        ("[provider]\nlisten_port = 70000", "provider.listen_port", ["between 0 and 65535"]),
        ("[provider]\ntrusted_proxies = [5]", "provider.trusted_proxies.0", ["text"]),
        ('[provider]\ntrusted_proxies = ["proxy"]', "provider.trusted_proxies", ["addresses or networks"]),
        ('[provider]\ntrusted_proxies = ["10.0.0.1/8"]', "provider.trusted_proxies", ["behind the prefix"]),
        ('[provider]\ntrusted_proxies = ["::1", "0.0.0.0/0"]', "provider.trusted_proxies", ["any stranger"]),
        ("[provider]\ntiming = {foo = 1}", "provider.timing.foo", ["no constant", "known here: "]),
        ("[provider]\ntiming = {grace_ss = 1}", "provider.timing.grace_ss", ["did you mean grace_s?"]),
        ("[provider]\ntiming = {name = 1}", "provider.timing.name", ["no constant"]),
        ('[store]\nurl = "mysql://x"', "store.url", ["sqlite:// or postgresql://"]),
    ],
)
def test_a_wrong_file_is_refused_with_key_file_and_reason(home, tmp_path, text, key, needles):
    file = write(tmp_path / "layer2.toml", text)
    error = refused(key, *needles, environ=home)
    assert error.path == str(tmp_path / "none" if "cannot read" in needles else file)
    assert error.path in str(error)


@pytest.mark.parametrize(
    ("arguments", "key", "argument"),
    [
        ({"bobb": {}}, "bobb", "bobb"),
        ({"bob": {"rpc_url": 5}}, "bob.rpc_url", "bob"),
        ({"max_concurrency": 0}, "max_concurrency", "max_concurrency"),
        ({"lightning": {"rest_url": "https://x"}}, "lightning.macaroon", "lightning"),
        ({"swap": {"depth": [{"depth": "deep"}]}}, "swap.depth.0.depth", "swap"),
    ],
)
def test_what_an_argument_has_wrong_is_not_blamed_on_the_file(home, tmp_path, arguments, key, argument):
    write(tmp_path / "layer2.toml", '[bob]\nrpc_url = "https://x"')
    error = refused(key, f"argument {argument}: ", environ=home, **arguments)
    assert error.path is None
    assert "layer2.toml" not in str(error)
    file = write(tmp_path / "layer2.toml", "[bob]\nrpc_url = 5")
    assert refused("bob.rpc_url", environ=home, bob={"chain": "bob"}).path == str(file)


def test_broken_toml_and_binary_files_are_refused(home, tmp_path):
    write(tmp_path / "layer2.toml", "max_concurrency = = 5")
    refused(None, "is not TOML", "line 1", environ=home)
    (tmp_path / "layer2.toml").write_bytes(b"\xff\xfe")
    refused(None, "is not TOML", environ=home)


@pytest.mark.parametrize("how", ["file", "env", "inline", "variable", "variable_file", "binary"])
def test_secrets_come_from_anywhere_and_are_never_shown(home, tmp_path, how):
    environ = {**home, "MACAROON": CANARY}
    setting = {
        "file": '{ file = "m" }',
        "binary": '{ file = "m" }',
        "env": '{ env = "MACAROON" }',
        "inline": f'"{CANARY}"',
    }
    write(tmp_path / "m", CANARY + "\n")
    if how == "binary":
        (tmp_path / "m").write_bytes(b"\x02\x01\xff" + CANARY.encode())
    text = '[lightning]\nrest_url = "https://user:pw@node:8080/path"\n'
    if how in setting:
        text += f"macaroon = {setting[how]}"
    elif how == "variable":
        environ["LAYER2_LIGHTNING__MACAROON"] = CANARY
    else:
        environ["LAYER2_LIGHTNING__MACAROON__FILE"] = str(tmp_path / "m")
    write(tmp_path / "layer2.toml", text)
    config = Layer2Config.load(environ=environ)
    assert CANARY.encode() in config.lightning.macaroon.reveal_bytes()
    if how == "binary":
        assert config.lightning.macaroon_hex == (b"\x02\x01\xff" + CANARY.encode()).hex()
        with pytest.raises(ConfigurationError):
            config.lightning.macaroon.reveal()
    else:
        assert config.lightning.macaroon.reveal() == CANARY
    for shown in (repr(config), str(config), f"{config.lightning.macaroon}", f"{config.lightning}"):
        assert CANARY not in shown
        assert "pw" not in shown
        assert "node:8080" in shown or shown == "***"
    assert CANARY not in config.to_toml().replace(f'"{tmp_path}', "")


def test_a_macaroon_in_hexadecimal_is_taken_as_it_is():
    section = LightningConfig(rest_url="https://x", macaroon=Secret("02AB\n"))
    assert section.macaroon_hex == "02ab"


def test_secrets_readable_by_everybody_are_refused_unless_allowed(home, tmp_path):
    text = '[lightning]\nrest_url = "https://x"\nmacaroon = {file = "m"}\n'
    secret = write(tmp_path / "m", "00", 0o644)
    file = write(tmp_path / "layer2.toml", text, 0o644)
    error = refused("lightning.macaroon", "chmod 600", "allow_readable_secrets", environ=home)
    assert error.path == str(secret)
    assert Layer2Config.load(environ=home, allow_readable_secrets=True).lightning is not None
    assert Layer2Config.load(environ={**home, "LAYER2_ALLOW_READABLE_SECRETS": "true"}).lightning is not None
    secret.chmod(0o640)
    assert Layer2Config.load(environ=home).lightning is not None
    for inline in ('[lightning]\nrest_url="https://x"\nmacaroon = "00"', '[store]\nurl = "postgresql://u:pw@h/d"'):
        file.write_text(inline)
        error = refused("store.url" if "store" in inline else "lightning.macaroon", environ=home)
        assert error.path == str(file)
        assert "pw@" not in str(error)
    file.chmod(0o600)
    assert Layer2Config.load(environ=home).store_url == "postgresql://u:pw@h/d"


def test_a_keystore_readable_by_everybody_is_refused(home, tmp_path):
    write(tmp_path / "layer2.toml", '[signer]\nkeystore = "k.json"\npassword = "x"')
    keystore = write(tmp_path / "k.json", "{}", 0o604)
    error = refused("signer.keystore", "chmod 600", environ=home)
    assert error.path == str(keystore)
    keystore.chmod(0o600)
    assert Layer2Config.load(environ=home).signer.keystore == keystore


def of(monkeypatch, uid):
    """Files that are opened belong to ``uid``."""
    real = os.fstat

    def fstat(fd):
        values = list(real(fd))
        values[4] = uid
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", fstat)


@pytest.mark.parametrize("how", ["here", "LAYER2_CONFIG", "argument"])
def test_a_settings_file_of_somebody_else_is_refused(home, tmp_path, monkeypatch, how):
    """It could send the macaroon, and the money, anywhere."""
    file = write(tmp_path / "layer2.toml", "allow_foreign_files = true\nmax_concurrency = 7", 0o600)
    environ = {**home, "LAYER2_CONFIG": str(file)} if how == "LAYER2_CONFIG" else home
    path = file if how == "argument" else None
    of(monkeypatch, 4242)
    error = refused(None, f"{file}; if it is not yours", "LAYER2_CONFIG", path=path, environ=environ)
    assert "user 4242" in error.message
    assert error.path == str(file)
    allowed = {**environ, "LAYER2_ALLOW_FOREIGN_FILES": "true"}
    assert Layer2Config.load(path, environ=allowed).max_concurrency == 7
    assert Layer2Config.load(path, environ=environ, allow_foreign_files=True).max_concurrency == 7
    for trusted in (0, os.geteuid()):
        of(monkeypatch, trusted)
        assert Layer2Config.load(path, environ=environ).max_concurrency == 7


def test_files_that_everybody_may_write_are_refused(home, tmp_path):
    settings = write(
        tmp_path / "layer2.toml",
        '[lightning]\nrest_url = "https://x"\nmacaroon = {file = "m"}\ntls_cert = "c"\n'
        '[signer]\nkeystore = "k"\npassword = {file = "p"}',
    )
    keys = {"lightning.macaroon": "m", "lightning.tls_cert": "c", "signer.keystore": "k", "signer.password": "p"}
    files = {key: write(tmp_path / name, "00", 0o600) for key, name in keys.items()}
    assert Layer2Config.load(environ=home).lightning is not None
    for key, file in {None: settings, **files}.items():
        mode = file.stat().st_mode
        file.chmod(0o602)
        error = refused(key, "chmod o-w", "LAYER2_ALLOW_FOREIGN_FILES", environ=home)
        assert error.path == str(file)
        assert Layer2Config.load(environ={**home, "LAYER2_ALLOW_FOREIGN_FILES": "true"}).lightning is not None
        file.chmod(0o660)
        assert Layer2Config.load(environ=home).lightning is not None
        file.chmod(mode)


def test_root_s_files_on_a_read_only_mount_pass(home, tmp_path, monkeypatch):
    write(tmp_path / "m", "00", 0o644)
    write(tmp_path / "layer2.toml", '[lightning]\nrest_url = "https://x"\nmacaroon = {file = "m"}\n')
    real_stat, real_statvfs = os.stat, os.statvfs
    owner = 0

    def stat(path, **options):
        values = list(real_stat(path, **options))
        values[4] = owner
        return os.stat_result(values)

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "statvfs", lambda _path: ReadOnly)
    assert Layer2Config.load(environ=home).lightning is not None
    owner = 1000
    refused("lightning.macaroon", environ=home)
    owner = 0
    monkeypatch.setattr(os, "statvfs", lambda path: real_statvfs(tmp_path))
    refused("lightning.macaroon", environ=home)


def test_empty_and_huge_secret_files_are_refused(home, tmp_path):
    write(tmp_path / "layer2.toml", '[lightning]\nrest_url = "https://x"\nmacaroon = {file = "m"}\n')
    write(tmp_path / "m", "\n")
    refused("lightning.macaroon", "is empty", environ=home)
    write(tmp_path / "m", "0" * 70_000)
    refused("lightning.macaroon", "longer than", environ=home)


def test_paths_belong_to_the_file_s_folder(tmp_path):
    write(tmp_path / "sub/m", "00")
    file = write(
        tmp_path / "sub/layer2.toml",
        '[lightning]\nrest_url = "https://x"\nmacaroon = {file = "m"}\ntls_cert = "tls.cert"\n'
        '[signer]\nkeystore = "~/k.json"\npassword = "x"',
    )
    config = Layer2Config.load(file, environ={})
    assert config.lightning.tls_cert == tmp_path / "sub/tls.cert"
    assert config.signer.keystore == Path.home() / "k.json"


def test_sections_built_directly_are_checked_too():
    with pytest.raises(ConfigurationError):
        ConnectionPoolConfig(max_connections=0)
    with pytest.raises(ConfigurationError):
        Layer2Config(max_concurrency="5")
    with pytest.raises(ConfigurationError):
        SignerConfig(private_key=Secret("00"), keystore=Path("x"), password=Secret("x"))
    with pytest.raises(ConfigurationError):
        DepthRule(depth="included", confirmations=0)


def test_embedded_needs_no_source_and_takes_changes():
    config = Layer2Config.embedded(max_concurrency=3, connection_pool={"max_connections": 7})
    assert config.is_embedded
    assert config.store_url == "sqlite://"
    assert (config.max_concurrency, config.connection_pool.max_connections) == (3, 7)
    assert config.depth_policy(10**12).confirmations == 1
    with pytest.raises(ConfigurationError, match="did you mean max_concurrency"):
        Layer2Config.embedded(max_concurency=3)


def test_defaults_bound_the_price_and_deepen_with_the_amount():
    config = Layer2Config()
    assert config.swap.max_fee(100_000) == 1_000 + 500
    assert [config.depth_policy(n).depth for n in (1, 1_000_000, 1_000_001, 20_000_000, 20_000_001)] == [
        Depth.INCLUDED,
        Depth.INCLUDED,
        Depth.SAFE,
        Depth.SAFE,
        Depth.FINALIZED,
    ]
    assert config.lightning_network == "mainnet"
    assert Layer2Config(network="devnet").lightning_network == "regtest"
    assert Layer2Config(network="bob-sepolia").chain_id == 808813
    assert config.store_url.endswith("/layer2/bob.sqlite3")


def test_assets_are_contracts_and_the_real_one_is_not_assumed_elsewhere():
    config = Layer2Config(assets={"tBTC": AssetConfig(contract=EvmAddress.parse(TOKEN), contract_decimals=18)})
    registry = config.asset_registry()
    assert str(registry.form(BTC, 60808).contract) == TOKEN
    assert registry.form(ETH, 60808).contract is None
    assert registry.form(AssetId(name="tBTC", decimals=8), 60808).decimals == 18
    with pytest.raises(AssetError):
        Layer2Config(network="devnet").asset_registry().form(BTC, 60808)
    wrong = Layer2Config(assets={"BTC": AssetConfig(contract=EvmAddress.parse(TOKEN), decimals=18)})
    with pytest.raises(ConfigurationError, match="BTC has 8, not 18"):
        wrong.asset_registry()


def test_timing_follows_the_network_and_unsafe_changes_are_refused():
    assert Layer2Config(network="devnet").chain_timing().evm_block_s <= 2
    assert Layer2Config().chain_timing().name != Layer2Config(network="devnet").chain_timing().name
    slower = Layer2Config(provider=ProviderConfig(timing={"grace_s": 9_000})).chain_timing()
    assert slower.grace_s == 9_000
    for timing in ({"grace_ss": 5}, {"hold_expiry_delta_blocks": 0}):
        with pytest.raises(ConfigurationError) as caught:
            Layer2Config(provider=ProviderConfig(timing=timing)).chain_timing()
        assert caught.value.key.startswith("provider.timing")


def test_written_settings_read_back_equal(tmp_path):
    write(tmp_path / "m", "00")
    file = write(
        tmp_path / "a.toml",
        f"""
        max_concurrency = 9
        [bob]
        chain = 808813
        rpc_url = "http://x/\\"quoted\\""
        allow_plain_http = true
        [lightning]
        rest_url = "https://x"
        macaroon = {{ file = "m" }}
        [assets.BTC]
        contract = "{TOKEN}"
        [[swap.depth]]
        up_to = 5
        depth = "safe"
        [[swap.depth]]
        depth = "finalized"
        [provider]
        accept_new = false
        timing = {{ grace_s = 700 }}
        """,
    )
    config = Layer2Config.load(file, environ={})
    again = write(tmp_path / "b.toml", config.to_toml())
    assert Layer2Config.load(again, environ={}) == config
    assert (
        "private_key was given directly" in Layer2Config(signer=SignerConfig(private_key=Secret("5e" * 32))).to_toml()
    )


@pytest.mark.parametrize("network", ["bob", "bob-sepolia", "devnet"])
@pytest.mark.parametrize("provider", [False, True])
def test_the_template_is_a_valid_start(tmp_path, network, provider):
    text = template(network=network, rest_url=None, keystore=None, provider=provider, rpc_url="https://x")
    config = Layer2Config.load(write(tmp_path / "layer2.toml", text), environ={})
    assert config.network == network
    assert config.lightning is None
    assert (config.provider == ProviderConfig()) is provider
    full = tomllib.loads(template())
    assert full["lightning"]["macaroon"]["file"].endswith("admin.macaroon")


def test_secrets_compare_by_value_and_survive_pickling_to_a_worker():
    assert Secret("x") == Secret(b"x")
    assert Secret("x") != Secret("y")
    assert Secret("x") != "x"
    config = Layer2Config(swap=SwapConfig(provider_url="https://x"), signer=SignerConfig(private_key=Secret("11" * 32)))
    assert pickle.loads(pickle.dumps(config)) == config


def test_reading_settings_loads_no_heavy_library():
    code = (
        "import sys; from layer2.config import Layer2Config; Layer2Config.embedded(); "
        "print([m for m in ('pydantic', 'aiohttp', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_embedded_network_leaves_no_store_behind(tmp_path):
    file = tmp_path / "layer2.toml"
    file.write_text('network = "embedded"\n')
    config = Layer2Config.load(file, environ={})
    assert config.store_url == provider_store_url(config) == "sqlite://"


@pytest.mark.parametrize("path", ["/var/lib/lnd/admin.macaroon", "~/admin.macaroon", "admin.macaroon"])
def test_a_path_in_the_place_of_a_macaroon_is_told(path):
    config = LightningConfig(rest_url="https://127.0.0.1:8080", macaroon=Secret(path))
    with pytest.raises(ConfigurationError) as caught:
        _ = config.macaroon_hex
    assert "file =" in caught.value.hint
    assert path not in str(caught.value)
