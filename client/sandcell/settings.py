"""The client's settings, each declared once: type, default and help.

Order of strength: arguments, `SANDCELL_*` environment, the profile's table
`[profiles.NAME]` of `config.toml`, its table `[client]`, default. `docs/settings.md`
lists every field (a test checks).
"""

from __future__ import annotations

import os
import tomllib
import warnings
from pathlib import Path
from typing import Any, Self, cast

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sandcell.errors import ConfigurationError
from sandcell_wire.words import GATEWAY_URL, SESSION_NAME, reason

APP = "sandcell"
MAX_RUNTIME_PATH = 50
"""Most bytes of the runtime directory's path; paths of Unix sockets follow below it."""


def config_file() -> Path:
    """Where `config.toml` is looked for: `SANDCELL_CONFIG`, or the user's configuration."""
    named = os.environ.get("SANDCELL_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir(APP)) / "config.toml"


def default_state_dir() -> Path:
    """Where the embedded gateway keeps what must last."""
    return Path(platformdirs.user_state_dir(APP))


def default_runtime_dir() -> Path:
    """Where the embedded gateway's socket is: short, local, private."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR platformdirs warns and takes a private directory elsewhere.
        warnings.simplefilter("ignore")
        path = Path(platformdirs.user_runtime_dir(APP))
    if len(os.fsencode(path)) > MAX_RUNTIME_PATH:
        return Path(f"/tmp/{APP}-{os.getuid()}")  # noqa: S108 (its owner and mode are checked)
    return path


class ClientSettings(BaseSettings):
    """Everything that a user can choose about the client and the local kernel."""

    model_config = SettingsConfigDict(
        env_prefix="SANDCELL_", extra="forbid", frozen=True, env_ignore_empty=True
    )

    url: str | None = Field(
        default=None,
        pattern=GATEWAY_URL,
        description="Address of the gateway, as in https://host:8621. "
        "Default: the embedded gateway, started when needed.",
    )
    token: SecretStr | None = Field(default=None, description="Token for the gateway at `url`.")
    session: str | None = Field(
        default=None,
        pattern=SESSION_NAME,
        description="Name or id of the session that a kernel attaches to.",
    )
    profile: str | None = Field(
        default=None, description="Table [profiles.NAME] of config.toml to take values from."
    )
    close_grace: float = Field(
        default=60.0,
        ge=0,
        description="Seconds for which an unnamed session is kept after its kernel was shut down.",
    )
    hold: float = Field(
        default=15.0,
        ge=0,
        description="Seconds for which a session is kept after its kernel was killed, for the "
        "kernel that takes it over.",
    )
    recreate: bool = Field(
        default=False,
        description="Start a new session at once when a kernel's session is gone, instead of "
        "telling so with an error; its variables are gone either way.",
    )
    verify: bool = Field(
        default=True,
        description="Check the gateway's certificate. Without it anybody on the way can read "
        "and change everything, the token included.",
    )
    ca_bundle: Path | None = Field(
        default=None,
        description="File with certificates (PEM) that are trusted besides the usual ones.",
    )
    proxy: str | None = Field(
        default=None,
        pattern=GATEWAY_URL,
        description="HTTP proxy to the gateway at `url`. Default: HTTPS_PROXY or HTTP_PROXY, "
        "but for hosts in NO_PROXY.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection to the gateway."
    )
    request_timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds to wait for an answer, on top of what was asked for.",
    )
    start_timeout: float = Field(
        default=30.0, gt=0, description="Seconds to wait for the embedded gateway to start."
    )
    keepalive: float = Field(
        default=8.0,
        ge=0.1,
        description="Seconds of silence after which a kernel asks the gateway for a sign of life; "
        "a line that stays silent for four times as long is given up and made anew.",
    )
    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="Directory in which an embedded gateway keeps its store and log.",
    )
    runtime_dir: Path = Field(
        default_factory=default_runtime_dir,
        description=f"Local directory for the embedded gateway's socket; at most "
        f"{MAX_RUNTIME_PATH} bytes.",
    )

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Combine all sources; `None` means not given.

        Raises `ConfigurationError` naming the bad key and value.
        """
        try:
            return cls(**{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            raise ConfigurationError(_explain(error)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = {**env_settings(), **init_settings()}
        file = _from_file(config_file(), given.get("profile"))
        return init_settings, env_settings, InitSettingsSource(settings_cls, file)


def _from_file(path: Path, profile: str | None) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        data = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    found = _table(path, data, "client")
    profile = profile or found.get("profile")
    if profile is None:
        return found
    profiles = _table(path, data, "profiles")
    if profile not in profiles:
        known = ", ".join(profiles) or "none"
        raise ConfigurationError(f"there is no profile {profile!r} in {path}; it has: {known}")
    return {**found, **_table(path, profiles, profile)}


def _table(path: Path, data: dict[str, Any], name: str) -> dict[str, Any]:
    found: object = data.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: `{name}` must be a table")
    return cast("dict[str, Any]", found)


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        got = "" if key.startswith("token") else f", got {item['input']!r}"
        lines.append(f"setting {key} (SANDCELL_{key.upper()}): {reason(item)}{got}")
    return "; ".join(lines)
