"""Through which proxy a gateway is reached."""

from __future__ import annotations

import pytest

from sandcell.connection import proxy
from sandcell.settings import ClientSettings


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (None, {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://far.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("http://far.example", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://far.example", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("https://far.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, None),
        ("https://localhost:1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://far.example", {"HTTPS_PROXY": "socks5://p:1"}, None),
        ("https://far.example", {"SANDCELL_PROXY": "http://mine:2"}, "http://mine:2"),
        ("https://localhost:1", {"SANDCELL_PROXY": "http://mine:2"}, "http://mine:2"),
    ],
)
def test_the_proxy_of_a_gateway(
    url: str | None,
    environ: dict[str, str],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SANDCELL_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environ.items():
        # Lower case is what the HTTP world agreed on; upper case works but for CGI.
        monkeypatch.setenv(name if name.startswith("SANDCELL") else name.lower(), value)
    assert proxy(ClientSettings.load(url=url)) == expected
