"""The gateway as an ASGI application: the wiring, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from starlette.types import ASGIApp

from sandcell_gateway.access.guard import Guard
from sandcell_gateway.access.leases import Leases
from sandcell_gateway.access.limits import AccessLimits
from sandcell_gateway.access.opening import open_access
from sandcell_gateway.auth import Authenticator
from sandcell_gateway.idempotency import IdempotencyKeys
from sandcell_gateway.middleware import Edge, HostCheck, handle, no_such_method
from sandcell_gateway.openapi import Api, operation_id
from sandcell_gateway.paths import DATABASE
from sandcell_gateway.problems import TABLE
from sandcell_gateway.proofs.keys import SigningKeys
from sandcell_gateway.routes import (
    channels,
    code,
    commands,
    events,
    files,
    health,
    history,
    proofs,
    sessions,
    stats,
    tokens,
)
from sandcell_gateway.sessions.proofs import ProofService
from sandcell_gateway.sessions.proving import Prover
from sandcell_gateway.sessions.reconciler import open_reconciler
from sandcell_gateway.sessions.service import SessionService
from sandcell_gateway.sessions.stats import VERSION, StatsService
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.store.database import open_database
from sandcell_gateway.store.idempotency import KeyStore
from sandcell_gateway.store.proofs import ProofStore
from sandcell_gateway.store.sessions import SessionStore
from sandcell_gateway.store.webhooks import WebhookStore
from sandcell_gateway.webhooks.deliveries import make_sender, open_webhooks
from sandcell_gateway.webhooks.jobs import JobEnds

PARTS = (
    *(health, stats, sessions, events, code, commands),
    *(files, history, proofs, channels, tokens),
)


def create_app(
    settings: GatewaySettings,
    authenticator: Authenticator,
    *,
    embedded: bool = False,
    on_running: Callable[[Callable[[], bool]], None] = lambda needed: None,
) -> Api:
    """The application. Its directories must exist and be locked (`paths`).

    `on_running` gets, as soon as it runs, what says whether anything needs it to go on: a
    live session, or a webhook that is due.
    Raises `SettingsError` when the signing key cannot be used.
    """
    keys = SigningKeys.open(settings.state_dir)
    leases = Leases()

    @asynccontextmanager
    async def lifespan(app: Api) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings.state_dir / DATABASE))
            app.state.tokens = await stack.enter_async_context(
                open_access(database, None if embedded else settings.issuer, authenticator, leases)
            )
            store = SessionStore(database)
            prover = Prover(ProofStore(database), keys, settings)
            reconciler = await stack.enter_async_context(
                open_reconciler(store, settings, prover.accompany)
            )
            stack.push_async_callback(lambda: prover.leave(reconciler.keepers.values()))
            service = SessionService(settings, store, reconciler, embedded=embedded)
            app.state.proofs = ProofService(service, ProofStore(database), prover)
            # Later than the reconciler, so that they end before its keepers do.
            webhooks = await stack.enter_async_context(
                open_webhooks(
                    WebhookStore(database),
                    JobEnds(reconciler).wait,
                    make_sender(settings),
                    settings.webhook_signer,
                )
            )
            app.state.stats = StatsService(service, settings)
            app.state.service, app.state.webhooks = service, webhooks
            app.state.keys = IdempotencyKeys(KeyStore(database))
            on_running(lambda: service.live > 0 or webhooks.needed)
            yield

    app = Api(
        title="sandcell",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        exception_handlers={**dict.fromkeys(TABLE, handle), 405: no_such_method},
    )
    app.state.stopping = asyncio.Event()
    for part in PARTS:
        app.include_router(part.router)
    limits = AccessLimits(settings.rate_limit)
    app.add_middleware(Guard, authenticator=authenticator, limits=limits, leases=leases)
    hosts = HostCheck(settings.host, settings.allowed_hosts, settings.allowed_origins)
    app.add_middleware(cast("type[ASGIApp]", Edge), hosts=hosts)  # type: ignore[arg-type]
    return app
