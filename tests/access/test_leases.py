"""A block that a token was needed for ends with the token."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sandcell_gateway.access.leases import Lease, Leases
from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.errors import TokenEnded
from sandcell_wire.scopes import Scope

NOBODY = Principal("o", frozenset(Scope), "token:1")
OTHER = Principal("o", frozenset(Scope), "token:2")
PATIENCE = 20.0


async def forever() -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.Event().wait()


async def hold(lease: Lease, *, armed: bool = True) -> None:
    async with lease.held(armed=armed):
        await forever()


async def test_revoked_while_held() -> None:
    leases = Leases()
    with leases.open(NOBODY) as lease, leases.open(OTHER) as other:
        task, kept = asyncio.create_task(hold(lease)), asyncio.create_task(hold(other))
        await asyncio.sleep(0)
        leases.revoke("token:1", but=other)
        leases.revoke("token:1", but=other)
        with pytest.raises(TokenEnded, match="revoked"):
            await task
        assert not kept.done()
        kept.cancel()
        assert len(leases) == 2
    assert len(leases) == 0


async def test_who_revokes_is_answered() -> None:
    leases = Leases()
    with leases.open(NOBODY) as one, leases.open(NOBODY) as own:
        leases.revoke("token:1", but=own)
        assert (one.end is None, own.end is None) == (False, True)


async def test_revoked_before_it_is_held() -> None:
    lease = Lease(None)
    lease.revoke()
    assert isinstance(lease.end, TokenEnded)
    with pytest.raises(TokenEnded, match="revoked"):
        await hold(lease)


async def test_expired_while_held() -> None:
    lease = Lease(now() + timedelta(seconds=0.05))
    with pytest.raises(TokenEnded, match="expired"):
        await hold(lease)
    assert lease.end is not None


async def test_expired_before_it_is_held() -> None:
    with pytest.raises(TokenEnded, match="expired"):
        await hold(Lease(now() - timedelta(seconds=1)))


async def test_what_is_not_armed_goes_on() -> None:
    """Until it is."""
    lease = Lease(now() - timedelta(seconds=1))
    lease.arm()
    async with lease.held(armed=False):
        lease.revoke()
        await asyncio.sleep(0.01)
    reached: list[str] = []

    async def arm_later() -> None:
        async with lease.held(armed=False):
            reached.append("armed")
            lease.arm()
            await forever()

    with pytest.raises(TokenEnded):
        await arm_later()
    assert reached


async def test_a_timeout_of_the_block_is_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with Lease(None).held(armed=True):
            raise TimeoutError


async def test_a_cancelled_block_is_cancelled() -> None:
    task = asyncio.create_task(hold(Lease(None)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
