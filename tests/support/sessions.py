"""The sessions of the gateway that the settings name."""

from __future__ import annotations

from collections.abc import Sequence

import sandcell


def sessions() -> Sequence[sandcell.Session]:
    """The live ones, the newest first; each as it was when it was asked for."""
    with sandcell.Client() as client:
        return client.sessions.list()


def session_ids() -> list[str]:
    """Of the live ones."""
    return [str(session.id) for session in sessions()]


def only_session() -> sandcell.Session:
    """The live one."""
    (session,) = sessions()
    return session


def close_all() -> None:
    """End them."""
    with sandcell.Client() as client:
        for session in client.sessions.list():
            session.close()
