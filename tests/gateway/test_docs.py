"""docs/rest.md says what the gateway does."""

from __future__ import annotations

import re

from sandcell_gateway import paths
from sandcell_gateway.app import create_app
from sandcell_gateway.auth import Authenticator
from sandcell_gateway.settings import load
from sandcell_wire.codes import HTTP_STATUS, Code
from tests.gateway.support import ROOT
from tests.support.home import Home

TEXT = (ROOT / "docs" / "rest.md").read_text()


def test_every_operation_is_documented(home: Home) -> None:
    settings = load()
    paths.prepare(settings)
    schema = create_app(settings, Authenticator(None)).openapi()
    offered = {
        f"{method.upper()} {path.replace('{session_id}', '{id}')}"
        for path, methods in schema["paths"].items()
        for method in methods
    }
    documented = set(re.findall(r"^\| `((?:GET|POST|DELETE|PATCH|PUT) [^`]+)`", TEXT, re.MULTILINE))
    assert documented == offered


def test_codes_have_the_documented_status() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", TEXT, re.MULTILINE))
    assert rows
    for code, status in rows.items():
        assert HTTP_STATUS[Code(code)] == int(status)
