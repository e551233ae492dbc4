"""A gateway behind TLS and behind a proxy: for programs, and for kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sandcell
from sandcell import ClientSettings
from tests.support.kernels import kernel
from tests.support.route import TOKEN, Route
from tests.support.secure import Secure, secured

pytestmark = pytest.mark.linux


@pytest.fixture
def secure(own_route: Route) -> Iterator[Secure]:
    assert own_route.proxy.target is not None
    with secured(own_route.proxy.target, own_route.home.path) as opened:
        yield opened


def client(secure: Secure, **settings: object) -> sandcell.Client:
    given = ClientSettings.load(url=secure.url, token=TOKEN, **settings)
    return sandcell.Client(settings=given)


def test_only_a_trusted_certificate_will_do(secure: Secure) -> None:
    with (
        client(secure) as wary,
        pytest.raises(sandcell.GatewayUnreachable, match="CERTIFICATE_VERIFY") as caught,
    ):
        wary.sessions.list()
    assert "SANDCELL_CA_BUNDLE" in (caught.value.hint or "")
    with client(secure, ca_bundle=secure.certificate) as trusting:
        assert trusting.sessions.list() == []
    with client(secure, verify=False) as careless:
        assert careless.sessions.list() == []
    with pytest.raises(sandcell.ConfigurationError, match="SANDCELL_CA_BUNDLE"):
        client(secure, ca_bundle="/no/such/file")


def test_programs_go_through_a_proxy(secure: Secure) -> None:
    with client(secure, ca_bundle=secure.certificate, proxy=secure.proxy) as behind:
        session = behind.sessions.create(wait=60)
        assert session.execute("6 * 7").text == "42"
        session.close()
    assert set(secure.tunnels) == {secure.url.removeprefix("https://")}


def test_kernels_do_so_too(own_route: Route, secure: Secure) -> None:
    environ = own_route.home.environ | {
        "SANDCELL_URL": secure.url,
        "SANDCELL_TOKEN": TOKEN,
        "SANDCELL_CA_BUNDLE": str(secure.certificate),
        "SANDCELL_PROXY": secure.proxy,
    }
    with kernel("sandcell", environ, own_route.home.path) as started:
        assert started.front.value("6 * 7") == "42"
        assert len(secure.tunnels) >= 2  # requests, and the channel
