"""Settings of client and gateway: where they come from, what is refused, what is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from sandcell import ClientSettings, ConfigurationError
from sandcell_gateway.settings import GatewaySettings, SettingsError, load
from tests.gateway.support import ROOT
from tests.support.home import Home
from tests.support.receiver import SECRET


@pytest.fixture
def config(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own config.toml."""
    path = home.path / "config.toml"
    monkeypatch.setenv("SANDCELL_CONFIG", str(path))
    return path


def test_the_order_of_the_clients_sources(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClientSettings.load().hold == 15
    config.write_text(
        "[client]\nhold = 1\nconnect_timeout = 1\nrequest_timeout = 1\nstart_timeout = 1\n"
        '[profiles.far]\nurl = "https://far.example"\ntoken = "t"\nconnect_timeout = 2\n'
        "request_timeout = 2\nstart_timeout = 2\n"
    )
    monkeypatch.setenv("SANDCELL_PROFILE", "far")
    monkeypatch.setenv("SANDCELL_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("SANDCELL_START_TIMEOUT", "3")
    settings = ClientSettings.load(start_timeout=4)
    assert settings.url == "https://far.example"
    assert settings.token is not None
    assert settings.token.get_secret_value() == "t"
    values = [
        settings.hold,
        settings.connect_timeout,
        settings.request_timeout,
        settings.start_timeout,
    ]
    assert values == [1, 2, 3, 4]
    assert "SecretStr('t')" not in repr(settings)


def test_the_order_of_the_gateways_sources(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().port == 8621
    config.write_text('[gateway]\nport = 1\nhost = "h1"\nengine = "e1"\n')
    monkeypatch.setenv("SANDCELL_HOST", "h2")
    monkeypatch.setenv("SANDCELL_ENGINE", "e2")
    settings = load({"engine": "e3", "host": None})
    assert (settings.port, settings.host, settings.engine) == (1, "h2", "e3")


def test_lists_from_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDCELL_ALLOWED_HOSTS", '["a.example", "b.example"]')
    assert load().allowed_hosts == ["a.example", "b.example"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[client]\nhold = -1\n", ["hold", "SANDCELL_HOLD", "-1"]),
        ("[client]\nhodl = 1\n", ["hodl"]),
        ("[client]\nurl = 'ftp://x'\n", ["url", "ftp://x", "such as 'https://host:8621'"]),
        ("[client]\nsession = 'a b'\n", ["session", "a b", "such as 'analysis-2'"]),
        ("[client\n", ["config.toml"]),
        ("client = 1\n", ["client", "table"]),
        ("[client]\nprofile = 'far'\n", ["far", "none"]),
        ("[client]\nprofile = 'far'\n[profiles.near]\n", ["far", "near"]),
    ],
)
def test_bad_client_settings(config: Path, text: str, words: list[str]) -> None:
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        ClientSettings.load()
    for word in words:
        assert word in str(caught.value)
    assert "pattern" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nport = 'x'\n", ["port", "SANDCELL_PORT", "'x'"]),
        ("[gateway]\nprot = 1\n", ["prot"]),
        ("[gateway]\nembedded_idle = 0\n", ["embedded_idle", "0"]),
        ("gateway = 1\n", ["gateway", "table"]),
        ("x = \n", ["config.toml"]),
        ("[gateway]\nruntime_dir = 'here'\n", ["runtime_dir", "absolute", "here"]),
    ],
)
def test_bad_gateway_settings(
    config: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.delenv("SANDCELL_RUNTIME_DIR")
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load()
    for word in words:
        assert word in str(caught.value)


def test_a_bad_token_is_not_repeated(home: Home, config: Path) -> None:
    config.write_text("[gateway]\ntoken = ['secret']\n[client]\ntoken = ['secret']\n")
    with pytest.raises(SettingsError) as gateway:
        load()
    with pytest.raises(ConfigurationError) as client:
        ClientSettings.load()
    assert "secret" not in str(gateway.value) + str(client.value)


def test_a_bad_webhook_secret_is_not_repeated(home: Home, config: Path) -> None:
    for value in ("'hunter2'", "'whsec_hunter2hunter2'", "['hunter2']"):
        config.write_text(f"[gateway]\nwebhook_secret = {value}\n")
        with pytest.raises(SettingsError, match="SANDCELL_WEBHOOK_SECRET") as caught:
            load()
        assert "hunter2" not in str(caught.value)
    config.write_text(f"[gateway]\nwebhook_secret = '{SECRET}'\n")
    assert load().webhook_signer is not None
    assert SECRET not in repr(load())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "webhook_hosts = ['a.example', 'b c']",
            ["webhook_hosts", "SANDCELL_WEBHOOK_HOSTS", "b c"],
        ),
        ("webhook_ca = 'ca.pem'", ["webhook_ca", "absolute", "ca.pem"]),
        ("webhook_ca = '/no/such/file'", ["webhook_ca", "SANDCELL_WEBHOOK_CA", "/no/such/file"]),
        ("webhook_ca = '/proc/self/comm'", ["webhook_ca", "certificates", "/proc/self/comm"]),
    ],
)
def test_bad_settings_of_webhooks(home: Home, config: Path, line: str, words: list[str]) -> None:
    config.write_text(f"[gateway]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        load()
    for word in words:
        assert word in str(caught.value)


def test_a_bad_jwt_secret_is_not_repeated(home: Home, config: Path) -> None:
    rest = "jwt_issuer = 'https://login.example'\njwt_audience = 'lab'\n"
    config.write_text(f"[gateway]\njwt_secret = 'hunter2'\n{rest}")
    with pytest.raises(SettingsError, match=r"SANDCELL_JWT_SECRET.*32 bytes") as caught:
        load()
    assert "hunter2" not in str(caught.value)
    config.write_text(f"[gateway]\njwt_secret = '{'s' * 32}'\n{rest}")
    assert load().issuer is not None
    assert "s" * 32 not in repr(load())


def test_bad_settings_of_jwts_name_the_setting(home: Home, config: Path) -> None:
    config.write_text("[gateway]\njwt_jwks_url = 'http://login.example/keys'\n")
    with pytest.raises(SettingsError, match=r"SANDCELL_JWT_JWKS_URL.*jwt_issuer"):
        load()


def test_the_embedded_gateway_has_no_rate_limit(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (load().rate_limit, load(embedded=True).rate_limit) == (3000, 0)
    monkeypatch.setenv("SANDCELL_RATE_LIMIT", "7")
    assert load(embedded=True).rate_limit == 7


def test_client_and_embedded_gateway_mean_the_same_places(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SANDCELL_STATE_DIR", "SANDCELL_RUNTIME_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(home.path / "state"))
    embedded, client = load(embedded=True), ClientSettings.load()
    assert (embedded.state_dir, embedded.runtime_dir) == (client.state_dir, client.runtime_dir)
    own = load()
    assert own.state_dir != embedded.state_dir
    assert own.runtime_dir != embedded.runtime_dir


def documented(kind: type[BaseSettings]) -> list[Any]:
    return [pytest.param(kind, name, id=f"{kind.__name__}.{name}") for name in kind.model_fields]


@pytest.mark.parametrize(("kind", "name"), documented(ClientSettings) + documented(GatewaySettings))
def test_every_setting_is_documented(kind: type[BaseSettings], name: str) -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    section = text[text.index("## Gateway") :] if kind is GatewaySettings else text
    if kind is ClientSettings:
        section = text[: text.index("## Gateway")]
    row = re.search(rf"^\| `{name}` \|.*$", section, re.MULTILINE)
    assert row is not None, f"docs/settings.md has no row for {name}"
    assert f"`SANDCELL_{name.upper()}`" in row[0]
    default = kind.model_fields[name].default
    if isinstance(default, int | float | str):
        assert str(default).removesuffix(".0").replace("_", "") in row[0].replace(",", "")
