"""The gateway as an ASGI application: the wiring, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from fastapi import FastAPI
from starlette.types import ASGIApp

from sandcell_gateway.auth import Authenticator
from sandcell_gateway.middleware import Edge, HostCheck, handle
from sandcell_gateway.paths import DATABASE
from sandcell_gateway.problems import TABLE
from sandcell_gateway.routes import channels, health, sessions
from sandcell_gateway.sessions.reconciler import open_reconciler
from sandcell_gateway.sessions.service import SessionService
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.store.database import open_database
from sandcell_gateway.store.sessions import SessionStore


def create_app(
    settings: GatewaySettings,
    authenticator: Authenticator,
    *,
    embedded: bool = False,
    on_service: Callable[[SessionService], None] = lambda service: None,
) -> FastAPI:
    """The application. Its directories must exist and be locked (`paths`).

    `on_service` gets the service as soon as it runs, for what ends the embedded gateway.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings.state_dir / DATABASE))
            store = SessionStore(database)
            reconciler = await stack.enter_async_context(open_reconciler(store, settings))
            service = SessionService(settings, store, reconciler, embedded=embedded)
            app.state.service = service
            on_service(service)
            yield

    app = FastAPI(
        title="sandcell",
        version=health.VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(TABLE, handle),
    )
    app.state.authenticator = authenticator
    for router in (health.router, sessions.router, channels.router):
        app.include_router(router)
    hosts = HostCheck(settings.host, settings.allowed_hosts, settings.allowed_origins)
    app.add_middleware(cast("type[ASGIApp]", Edge), hosts=hosts)  # type: ignore[arg-type]
    return app
