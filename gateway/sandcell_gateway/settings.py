"""The gateway's settings, each declared once: type, default and help.

Order of strength: command line, `SANDCELL_*` environment, table `[gateway]` of
`config.toml`, default. Built at the edge by `load` and passed down; nothing
deeper reads the environment. `docs/settings.md` lists every field (a test checks).
"""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic.config import JsonDict
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

MAX_RUNTIME_PATH = 50
"""Most bytes of the runtime directory's path: a Unix socket's path has at most 107,
and `s/<16 hex digits>/k/<name>-5` follows."""

APP = "sandcell"

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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )
    log_bytes: int = Field(
        default=4 << 20,
        ge=4096,
        description="Size in bytes beyond which a start puts the log file aside.",
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
        own = {"state_dir": default_state_dir(), "runtime_dir": default_runtime_dir()}
        missing = {k: v for k, v in own.items() if k not in settings.model_fields_set}
        settings = settings.model_copy(update=missing)
    _check(settings)
    return settings


def _check(settings: GatewaySettings) -> None:
    for key in ("state_dir", "runtime_dir"):
        path: Path = getattr(settings, key)
        if not path.is_absolute():
            raise SettingsError(f"{key} must be an absolute path, got {str(path)!r}")
    used = len(os.fsencode(settings.runtime_dir))
    if used > MAX_RUNTIME_PATH:
        raise SettingsError(
            f"runtime_dir has {used} bytes, at most {MAX_RUNTIME_PATH} fit into the path of a "
            f"Unix socket: {settings.runtime_dir}; set SANDCELL_RUNTIME_DIR to a shorter one"
        )


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        secret = key.startswith("token")
        got = "" if secret else f", got {item['input']!r}"
        lines.append(f"setting {key} (SANDCELL_{key.upper()}): {item['msg']}{got}")
    return "; ".join(lines)
