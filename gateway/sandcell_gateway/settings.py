"""The gateway's settings, each declared once: type, default and help.

Order of strength: command line, `SANDCELL_*` environment, table `[gateway]` of
`config.toml`, default. Built at the edge by `load` and passed down; nothing
deeper reads the environment. `docs/settings.md` lists every field (a test checks).
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
from pydantic import ByteSize, Field, SecretStr, ValidationError
from pydantic.config import JsonDict
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sandcell_gateway.access.issuer import Issuer
from sandcell_gateway.webhooks.addresses import Allowed
from sandcell_gateway.webhooks.signing import Signer

MAX_RUNTIME_PATH = 50
"""Most bytes of the runtime directory's path: a Unix socket's path has at most 107,
and `s/<16 hex digits>/k/<name>-5` follows."""

APP = "sandcell"
_ORIGIN = re.compile(r"https?://[^\s/*]+/?")

NOT_AN_OPTION: JsonDict = {"cli": False}
"""Marks what must not stand on a command line, where every user of the machine can read it."""


class SettingsError(Exception):
    """A setting that can not be used; names the key, the value and what was expected."""


def config_file() -> Path:
    """Where `config.toml` is looked for: `SANDCELL_CONFIG`, or the user's configuration."""
    named = os.environ.get("SANDCELL_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir(APP)) / "config.toml"


def default_state_dir() -> Path:
    """The embedded gateway's directory for what must last."""
    return Path(platformdirs.user_state_dir(APP))


def default_runtime_dir() -> Path:
    """The embedded gateway's directory for sockets and locks: short, local, private."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR platformdirs warns and takes a private directory elsewhere.
        warnings.simplefilter("ignore")
        path = Path(platformdirs.user_runtime_dir(APP))
    if len(os.fsencode(path)) > MAX_RUNTIME_PATH - len("/gateway"):
        return Path(f"/tmp/{APP}-{os.getuid()}")  # noqa: S108 (checked by paths.private_directory)
    return path


class GatewaySettings(BaseSettings):
    """Everything that an operator can choose about a gateway."""

    model_config = SettingsConfigDict(
        env_prefix="SANDCELL_", extra="forbid", frozen=True, env_ignore_empty=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8621, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    socket: Path | None = Field(
        default=None, description="Listen on this Unix socket too; its peers need no token."
    )
    token: SecretStr | None = Field(
        default=None,
        description="Token that clients on TCP must send. Default: one made in a 0600 file.",
        json_schema_extra=NOT_AN_OPTION,
    )
    rate_limit: int = Field(
        default=3000,
        ge=0,
        le=1_000_000,
        description="Most requests a minute with one token; 0: as many as it likes.",
    )
    jwt_secret: SecretStr | None = Field(
        default=None,
        description="Secret of at least 32 bytes that JWTs are signed with (HS256).",
        json_schema_extra=NOT_AN_OPTION,
    )
    jwt_jwks_url: str | None = Field(
        default=None,
        description="Address of the public keys (JWKS) that JWTs are signed with.",
    )
    jwt_issuer: str | None = Field(
        default=None, description="What JWTs must have as `iss`; with their `sub` it is the owner."
    )
    jwt_audience: str | None = Field(
        default=None, description="What JWTs must have as `aud`: this gateway's name for others."
    )
    state_dir: Path = Field(
        default_factory=lambda: default_state_dir() / "gateway",
        description="Directory for the store, logs and the sessions' files.",
    )
    runtime_dir: Path = Field(
        default_factory=lambda: default_runtime_dir() / "gateway",
        description=f"Local directory for sockets and locks; at most {MAX_RUNTIME_PATH} bytes.",
    )
    engine: str = Field(
        default="auto", description="How sandboxes are made: auto takes the strongest that works."
    )
    max_memory: ByteSize | None = Field(
        default=None,
        ge=64 << 20,
        description="Most memory of one session in bytes, or as 4GiB. Default: three quarters of "
        "this machine's.",
    )
    max_cpus: float = Field(
        default=0.0, ge=0, description="Most processors' worth of time of one session; 0: all."
    )
    max_disk: ByteSize = Field(
        default=ByteSize(20 << 30),
        ge=1 << 20,
        description="Most bytes of one session's files and packages, or as 20GiB.",
    )
    max_processes: int = Field(
        default=512, ge=16, description="Most processes and threads of one session."
    )
    allowed_hosts: list[str] = Field(
        default_factory=list[str],
        description="Host names that clients on TCP may use, besides localhost, this machine's "
        'own and IP addresses. "*" allows all.',
    )
    allowed_origins: list[str] = Field(
        default_factory=list[str],
        description="Origins of web pages that may talk to the gateway, besides its own.",
    )
    embedded_idle: float = Field(
        default=60.0,
        ge=1,
        description="Seconds without a live session or a connection after which the embedded "
        "gateway exits.",
    )
    keep_closed: float = Field(
        default=7 * 86400.0,
        ge=0,
        description="Seconds for which closed sessions stay in the store.",
    )
    orphan_timeout: float = Field(
        default=86400.0,
        ge=1,
        le=10 * 365 * 86400,
        description="Seconds after which a session is closed whose kernel was killed and has "
        "not come back.",
    )
    journal_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="Most bytes on disk of one session's journal; the oldest output goes first.",
    )
    proof_executions: int = Field(
        default=100,
        ge=0,
        description="Executions of a session after which its journal is signed; 0: never.",
    )
    proof_bytes: ByteSize = Field(
        default=ByteSize(64 << 20),
        ge=0,
        description="Bytes of a session's journal after which it is signed, or as 64MiB; 0: never.",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Secret that signs webhooks, whsec_ and base64; several while one is "
        "replaced. Without one, jobs with a webhook are refused.",
        json_schema_extra=NOT_AN_OPTION,
    )
    webhook_hosts: list[str] = Field(
        default_factory=list[str],
        description="Host names, addresses or networks that webhooks may go to besides public "
        "addresses.",
    )
    webhook_ca: Path | None = Field(
        default=None,
        description="File of certificates (PEM) that vouch for receivers, besides the public "
        "authorities.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )
    log_bytes: int = Field(
        default=4 << 20,
        ge=4096,
        description="Size in bytes beyond which a start puts the log file aside.",
    )

    @property
    def webhook_signer(self) -> Signer | None:
        """What signs webhooks. Raises `ValueError`, without the secret, when it cannot."""
        secret = self.webhook_secret
        return None if secret is None else Signer.parse(secret.get_secret_value())

    @property
    def issuer(self) -> Issuer | None:
        """Whose JWTs are valid. Raises `ValueError`, without the secret, when it cannot be used."""
        secret = self.jwt_secret
        return Issuer.parse(
            issuer=self.jwt_issuer,
            audience=self.jwt_audience,
            secret=None if secret is None else secret.get_secret_value(),
            jwks_url=self.jwt_jwks_url,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = InitSettingsSource(settings_cls, _read_table(config_file(), "gateway"))
        return init_settings, env_settings, file


def _read_table(path: Path, table: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    found: object = data.get(table, {})
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: `{table}` must be a table, got {type(found).__name__}")
    return cast("dict[str, Any]", found)


def load(given: Mapping[str, Any] | None = None, *, embedded: bool = False) -> GatewaySettings:
    """Combine all sources; `given` is the command line's.

    The embedded gateway has directories of its own, so that one started in the
    foreground does not meet it. Raises `SettingsError` naming the bad key and value.
    """
    values = {key: value for key, value in (given or {}).items() if value is not None}
    try:
        settings = GatewaySettings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    if embedded:
        own: dict[str, Any] = {
            "state_dir": default_state_dir(),
            "runtime_dir": default_runtime_dir(),
            "rate_limit": 0,
        }
        missing = {k: v for k, v in own.items() if k not in settings.model_fields_set}
        settings = settings.model_copy(update=missing)
    _check(settings)
    return settings


def _check(settings: GatewaySettings) -> None:
    for key in ("state_dir", "runtime_dir"):
        path: Path = getattr(settings, key)
        if not path.is_absolute():
            raise SettingsError(f"{key} must be an absolute path, got {str(path)!r}")
    for origin in settings.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                "setting allowed_origins (SANDCELL_ALLOWED_ORIGINS): expected origins such as "
                f"https://lab.example or http://localhost:8888, got {origin!r}"
            )
    _check_parts(settings)
    used = len(os.fsencode(settings.runtime_dir))
    if used > MAX_RUNTIME_PATH:
        raise SettingsError(
            f"runtime_dir has {used} bytes, at most {MAX_RUNTIME_PATH} fit into the path of a "
            f"Unix socket: {settings.runtime_dir}; set SANDCELL_RUNTIME_DIR to a shorter one"
        )


def _check_parts(settings: GatewaySettings) -> None:
    checks: dict[str, Callable[[], object]] = {
        "jwt_secret" if settings.jwt_jwks_url is None else "jwt_jwks_url": lambda: settings.issuer,
        "webhook_secret": lambda: settings.webhook_signer,
        "webhook_hosts": lambda: Allowed.parse(settings.webhook_hosts),
        "webhook_ca": lambda: _check_authorities(settings.webhook_ca),
    }
    for key, check in checks.items():
        try:
            check()
        except ValueError as error:
            raise SettingsError(f"setting {key} (SANDCELL_{key.upper()}): {error}") from error


def _check_authorities(path: Path | None) -> None:
    if path is None:
        return
    expected = "expected the absolute path of a file of certificates (PEM), "
    if not path.is_absolute():
        raise ValueError(f"{expected}got {str(path)!r}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{expected}got {path}: {error}") from error


def _is_secret(key: str) -> bool:
    field = GatewaySettings.model_fields.get(key.partition(".")[0])
    return field is not None and field.json_schema_extra == NOT_AN_OPTION


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        got = "" if _is_secret(key) else f", got {item['input']!r}"
        lines.append(f"setting {key} (SANDCELL_{key.upper()}): {item['msg']}{got}")
    return "; ".join(lines)
