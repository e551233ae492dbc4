"""Commands about the session as a whole."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator

from sandcell import AsyncSession, ConflictError, SandcellError
from sandcell.errors import explain
from sandcell_magics.context import Context, NoSession
from sandcell_magics.results import Card, Result, Table, Text
from sandcell_wire.states import JournalState


def title(session: AsyncSession) -> str:
    """How people know a session: by its name, or the beginning of its id."""
    return session.name or f"session {str(session.id)[:8]}"


def _card(session: AsyncSession) -> Card:
    model = session.model
    facts = [
        ("status", model.status.value),
        ("id", str(model.id)),
        ("engine", model.engine if model.isolated else f"{model.engine} (isolates nothing)"),
        ("since", model.created_at.strftime("%Y-%m-%d %H:%M:%S UTC")),
    ]
    if model.reason is not None:
        facts.insert(1, ("reason", model.reason.text))
    if model.journal is JournalState.ALTERED:
        facts.append(("journal", "altered: it is not the one that was signed"))
    return Card(title(session), tuple(facts))


async def status(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """Status, reason, engine."""
    try:
        yield _card(await context.session())
    except NoSession as none:
        yield Text(explain(none))


async def list_sessions(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """The live ones."""
    sessions = await context.client.sessions.list()
    rows = tuple(
        (str(s.id)[:8], s.name or "", s.status.value, s.model.created_at.strftime("%H:%M:%S"))
        for s in sessions
    )
    yield Table(("id", "name", "status", "since"), rows, "" if rows else "no sessions")


async def start(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """A new one; without a name only when there is none."""
    name: str | None = options.name
    if name is None:
        try:
            session = await context.session()
        except SandcellError:
            pass  # there is none to be lost
        else:
            raise ConflictError(
                f"{title(session)} is {session.status.value}",
                hint="%sandbox close ends it, %sandbox start NAME starts another one beside it.",
            )
    session = await context.start(name)
    kept = "; it is kept until you close it" if name else ""
    yield Text(f"Started {title(session)}{kept}.")


async def attach(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """Another one, with what was missed of it."""
    session = await context.attach(options.name)
    yield Text(f"Attached to {title(session)} ({session.status.value}).")
    await context.follow()


async def restart(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """A fresh interpreter."""
    await (await context.session()).restart()
    yield Text("A fresh interpreter is ready; files and packages are kept.")


async def close(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """End it."""
    try:
        session = await context.close()
    except NoSession as none:
        yield Text(explain(none))
    else:
        yield Text(f"Session {str(session.id)[:8]} is closed.")
