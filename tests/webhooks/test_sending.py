"""One attempt, against a real TLS receiver: what is refused, followed, read and verified."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpcore
import pytest
import trustme

from sandcell_gateway.webhooks import sending
from sandcell_gateway.webhooks.addresses import Address, Allowed, literal
from sandcell_gateway.webhooks.schedule import Answer
from sandcell_gateway.webhooks.sending import PinnedBackend, Sender, direct, own_addresses
from tests.support.receiver import PATIENCE, endless, hold, receiver, status

PUBLIC = "93.184.215.14"
HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}


class Detour(httpcore.AsyncNetworkBackend):
    """Leads every connection to this machine, and remembers where it was to go."""

    def __init__(self, *refusing: str) -> None:
        self.asked: list[str] = []
        self.refusing = refusing

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if host in self.refusing:
            raise httpcore.ConnectError("refused as asked")
        return await direct().connect_tcp("127.0.0.1", port, timeout)


class Names:
    """A resolver that says something else each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def local(authorities: Path | None, timeout: float = PATIENCE) -> Sender:
    """May go to `localhost`."""
    return Sender(Allowed.parse(["localhost"]), authorities, timeout=timeout)


async def test_what_a_receiver_gets(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority, status(202)) as there:
        answer = await local(authorities).post(there.url(path="/a?b=c"), HEADERS, b'{"x":1}')
        came = await asyncio.to_thread(there.next)
    assert answer == Answer(202)
    assert (came.path, came.body) == ("/a?b=c", b'{"x":1}')
    assert HEADERS.items() <= came.headers.items()
    assert came.headers["host"] == f"localhost:{there.port}"
    assert came.headers["content-type"] == "application/json"
    assert came.headers["content-length"] == "7"


async def test_a_receiver_says_when_to_come_again(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority, status(503, Retry_After="7")) as there:
        answer = await local(authorities).post(there.url(), HEADERS, b"{}")
    assert answer == Answer(503, "answered 503", 7)


async def test_redirects_are_not_followed(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority) as other, receiver(authority) as there:
        there.replies.append(status(307, Location=other.url()))
        answer = await local(authorities).post(there.url(), HEADERS, b"{}")
        assert (answer.status, other.count) == (307, 0)


async def test_no_proxy_of_the_environment_is_used(
    authority: trustme.CA, authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiver(authority) as there:
        assert (await local(authorities).post(there.url(), HEADERS, b"{}")).status == 204


async def test_a_slow_receiver_is_left(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority, hold) as there:
        answer = await local(authorities, timeout=0.2).post(there.url(), HEADERS, b"{}")
    assert answer == Answer(error="no answer within 0.2 seconds")


async def test_an_answer_without_end_is_not_read(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority, endless) as there:
        answer = await local(authorities).post(there.url(), HEADERS, b"{}")
        assert answer.status == 200
        assert await asyncio.to_thread(there.cut_off.wait, PATIENCE)


async def test_a_receiver_that_is_not_there(authority: trustme.CA, authorities: Path) -> None:
    with receiver(authority) as there:
        url = there.url()
    answer = await local(authorities).post(url, HEADERS, b"{}")
    assert answer.status is None
    assert (answer.error or "").startswith("localhost: ")


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_certificate_counts(
    authority: trustme.CA, authorities: Path, trusted: bool
) -> None:
    """The authority must be known, and the name be the certificate's."""
    sender = Sender(
        Allowed.parse(["other.test"]),
        authorities if trusted else None,
        backend=PinnedBackend(Allowed.parse(["other.test"]), Names(["127.0.0.1"])),
    )
    with receiver(authority) as there:
        answer = await sender.post(there.url("other.test"), HEADERS, b"{}")
        assert there.count == 0
    assert "CERTIFICATE_VERIFY_FAILED" in (answer.error or "")
    assert ("Hostname mismatch" in (answer.error or "")) is trusted


async def test_a_name_counts_as_it_was_looked_at(authority: trustme.CA, authorities: Path) -> None:
    """Who answers with a public address first and a private one then gets nothing by it."""
    names, detour = Names([PUBLIC], ["127.0.0.1"]), Detour()
    sender = Sender(Allowed(), authorities, backend=PinnedBackend(Allowed(), names, inner=detour))
    with receiver(authority) as there:
        first = await sender.post(there.url("hooks.test"), HEADERS, b"{}")
        assert (first.status, names.asked, detour.asked) == (204, ["hooks.test"], [PUBLIC])
        second = await sender.post(there.url("hooks.test"), HEADERS, b"{}")
        assert (second.status, detour.asked, there.count) == (None, [PUBLIC], 1)
        assert "hooks.test has no public address" in (second.error or "")


async def test_of_several_addresses_only_public_ones_are_tried() -> None:
    detour = Detour(PUBLIC, "8.8.8.8")
    names = Names(["10.0.0.1", PUBLIC, "::1", "8.8.8.8", "169.254.169.254"])
    sender = Sender(Allowed(), None, backend=PinnedBackend(Allowed(), names, inner=detour))
    answer = await sender.post("https://hooks.test/", HEADERS, b"{}")
    assert detour.asked == [PUBLIC, "8.8.8.8"]
    assert answer == Answer(error="hooks.test: refused as asked")


async def test_a_name_with_many_addresses_is_not_tried_at_all_of_them() -> None:
    many = [f"8.8.8.{number}" for number in range(50)]
    detour = Detour(*many)
    sender = Sender(Allowed(), None, backend=PinnedBackend(Allowed(), Names(many), inner=detour))
    await sender.post("https://hooks.test/", HEADERS, b"{}")
    assert detour.asked == many[: sending.MAX_ADDRESSES]


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost:{port}/",
        "https://127.0.0.1:{port}/",
        "https://127.1:{port}/",
        "https://2130706433:{port}/",
        "https://0x7f000001:{port}/",
        "https://0:{port}/",
        "https://[::1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://no.such.host.invalid:{port}/",
    ],
)
async def test_ways_to_this_machine(authority: trustme.CA, authorities: Path, url: str) -> None:
    """Names and literals, as the system's resolver understands them."""
    with receiver(authority) as there:
        answer = await Sender(Allowed(), authorities).post(
            url.format(port=there.port), HEADERS, b"{}"
        )
        assert there.count == 0
    assert "no public address" in (answer.error or "")


async def test_the_machine_s_own_addresses_are_refused(
    authority: trustme.CA, authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "own_addresses", lambda: own_addresses() | {_address(PUBLIC)})
    detour = Detour()
    backend = PinnedBackend(Allowed(), Names([PUBLIC]), inner=detour)
    answer = await Sender(Allowed(), None, backend=backend).post(
        "https://hooks.test/", HEADERS, b"{}"
    )
    assert (detour.asked, answer.status) == ([], None)


def _address(text: str) -> Address:
    found = literal(text)
    assert found is not None
    return found


def test_own_addresses_are_the_interfaces() -> None:
    assert _address("127.0.0.1") in own_addresses()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://10.0.0.1/x", "private"),
        ("https://[fd00::1]:8443/", "not public"),
        ("https://127.0.0.1/", "own"),
        ("https://8.8.8.8/", None),
        ("https://192.168.7.7/", None),
        ("https://any.example/", None),
    ],
)
def test_addresses_are_refused_before_anything_is_tried(url: str, why: str | None) -> None:
    refused = Sender(Allowed.parse(["192.168.7.0/24"]), None).refuses(url)
    assert refused is None if why is None else why in (refused or "")
