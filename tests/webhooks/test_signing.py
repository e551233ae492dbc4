"""What receivers check: computed here without the code under test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.webhooks.signing import MAX_KEY, MIN_KEY, Signer

KEYS = st.binary(min_size=MIN_KEY, max_size=MAX_KEY)


def secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(KEYS, st.binary(max_size=300), st.integers(0, 1 << 40))
def test_the_signature_is_an_hmac_of_id_time_and_body(key: bytes, body: bytes, moment: int) -> None:
    headers = Signer.parse(secret(key)).headers("msg_1", moment, body)
    content = b"msg_1." + str(moment).encode() + b"." + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{expected}",
    }


def test_the_example_that_the_libraries_for_receivers_are_tested_with() -> None:
    signer = Signer.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_replaced_both_sign() -> None:
    new, old = secret(b"n" * 32), secret(b"o" * 32)
    both = Signer.parse(f"{new} {old}").headers("msg_1", 1, b"{}")["webhook-signature"]
    each = [Signer.parse(one).headers("msg_1", 1, b"{}")["webhook-signature"] for one in (new, old)]
    assert both.split(" ") == each


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hunter2",
        "whsec_",
        "whsec_hunter2!",
        secret(b"k" * (MIN_KEY - 1)),
        secret(b"k" * (MAX_KEY + 1)),
        secret(b"k" * 32).removeprefix("whsec_"),
        f"{secret(b'k' * 32)} hunter2",
    ],
)
def test_a_bad_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="expected whsec_ and 24 to 64 random bytes") as caught:
        Signer.parse(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown
    assert len(text) < 10 or text not in str(caught.value)


def test_a_signer_does_not_show_its_keys() -> None:
    assert "k" * 24 not in repr(Signer.parse(secret(b"k" * 32)))
