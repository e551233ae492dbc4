"""What the gateway may ask of a shim on its control line (docs/protocol.md)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandcell_gateway.engines.base import EngineError
from sandcell_gateway.journal.records import Record
from sandcell_gateway.shim.command import Order
from sandcell_gateway.shim.executions import code_of
from sandcell_gateway.shim.session import ShimSession
from sandcell_wire.codes import Code
from sandcell_wire.states import IllegalTransition

MAX_PAGE = 500
"""Most executions or commands listed at once."""

Operation = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class RequestError(Exception):
    """A control request that cannot be done; code and text go to the gateway."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(text)


class Operations:
    """On one session."""

    def __init__(self, session: ShimSession) -> None:
        self._session = session
        self._named: Mapping[str, Operation] = {
            "info": self._info,
            "restart": self._restart,
            "pause": self._pause,
            "resume": self._resume,
            "interrupt": self._interrupt,
            "executions": self._executions,
            "execute": self._execute,
            "wait": self._wait,
            "heard": self._heard,
            "head": self._head,
            "commands": self._commands,
            "start_command": self._start_command,
            "wait_command": self._wait_command,
            "signal_command": self._signal_command,
            "write_command": self._write_command,
            "close": self._close,
        }

    async def do(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Its result. Raises `RequestError` or `CommandRefused` for what cannot be done."""
        if op not in self._named:
            raise RequestError(
                Code.VALIDATION_ERROR, f"expected one of {', '.join(self._named)}, got {op!r}"
            )
        return await self._named[op](args)

    async def _info(self, args: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._session.life.event(),
            "seq": self._session.journal.newest,
            "pid": os.getpid(),
        }

    async def _restart(self, args: dict[str, Any]) -> dict[str, Any]:
        await self._session.restart(args.get("interpreter"))
        if self._session.life.reason is not None:
            raise RequestError(Code.OPERATION_FAILED, self._session.life.reason["text"])
        return {**self._session.life.event()}

    async def _pause(self, args: dict[str, Any]) -> dict[str, Any]:
        try:
            await self._session.pausing.pause()
        except IllegalTransition as error:
            raise RequestError(Code.CONFLICT, str(error)) from error
        except EngineError as error:
            raise RequestError(Code.OPERATION_FAILED, str(error)) from error
        return {**self._session.life.event()}

    async def _resume(self, args: dict[str, Any]) -> dict[str, Any]:
        await self._session.pausing.resume()
        return {**self._session.life.event()}

    async def _interrupt(self, args: dict[str, Any]) -> dict[str, Any]:
        self._session.interrupt()
        return {}

    async def _executions(self, args: dict[str, Any]) -> dict[str, Any]:
        found, total = self._session.executions.page(
            limit=min(int(args["limit"]), MAX_PAGE),
            offset=int(args.get("offset", 0)),
            detached=args.get("detached"),
            newest=bool(args.get("newest")),
        )
        entries = [execution.as_json() for execution in found]
        if args.get("code"):
            codes = await asyncio.to_thread(self._codes, [entry["first"] for entry in entries])
            entries = [{**entry, "code": code} for entry, code in zip(entries, codes, strict=True)]
        return {"executions": entries, "total": total}

    def _codes(self, numbers: list[int]) -> list[str]:
        """What these requests ask to run; empty where the journal has dropped it."""
        records = [self._session.journal.get(number) for number in numbers]
        return [code_of(record) if isinstance(record, Record) else "" for record in records]

    async def _execute(self, args: dict[str, Any]) -> dict[str, Any]:
        timeout = args.get("timeout")
        return self._session.execute(
            str(args["id"]),
            str(args["code"]),
            detached=bool(args.get("detached")),
            timeout=None if timeout is None else float(timeout),
        ).as_json()

    async def _wait(self, args: dict[str, Any]) -> dict[str, Any]:
        """How far one execution is, after at most `seconds`."""
        found = self._session.executions.get(str(args["id"]))
        if found is None:
            raise RequestError(Code.NOT_FOUND, f"there is no execution {args['id']}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(args.get("seconds", 0))):
                await self._session.wait(found)
        return found.as_json()

    async def _heard(self, args: dict[str, Any]) -> dict[str, Any]:
        """A client, that has no channel, has everything up to `seq`."""
        self._session.heard(str(args["client"]), int(args["seq"]))
        return {}

    async def _head(self, args: dict[str, Any]) -> dict[str, Any]:
        """Number and chain of the newest record, which is on the disk when this is answered.

        With `seconds` when the journal has grown by so much, or after so many seconds.
        """
        due = False
        if "seconds" in args:
            wanted = (int(args.get(name, 0)) for name in ("after", "executions", "bytes"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(float(args["seconds"])):
                    await self._session.growth.until(*wanted)
                    due = True
        journal = self._session.journal
        seq, chain = journal.head()
        await asyncio.to_thread(journal.sync)
        holes = await asyncio.to_thread(journal.holes, seq)
        return {"seq": seq, "chain": chain.hex(), "holes": holes, "due": due}

    async def _commands(self, args: dict[str, Any]) -> dict[str, Any]:
        found, total = self._session.commands.page(
            limit=min(int(args["limit"]), MAX_PAGE), offset=int(args.get("offset", 0))
        )
        return {"commands": [command.as_json() for command in found], "total": total}

    async def _start_command(self, args: dict[str, Any]) -> dict[str, Any]:
        return (await self._session.commands.start(Order.from_json(args))).as_json()

    async def _wait_command(self, args: dict[str, Any]) -> dict[str, Any]:
        """How far one command is, after at most `seconds`."""
        running = self._session.commands.get(str(args["id"]))
        await running.changed.until(lambda: running.has_ended, float(args.get("seconds", 0)))
        return running.command.as_json()

    async def _signal_command(self, args: dict[str, Any]) -> dict[str, Any]:
        command = await self._session.commands.signal(str(args["id"]), int(args["signal"]))
        return command.as_json()

    async def _write_command(self, args: dict[str, Any]) -> dict[str, Any]:
        text, at = str(args.get("text", "")), args.get("at")
        end = bool(args.get("end"))
        return await self._session.commands.write(str(args["id"]), at, text.encode(), end=end)

    async def _close(self, args: dict[str, Any]) -> dict[str, Any]:
        self._session.closed.set()
        await self._session.ended.wait()
        return {**self._session.life.event()}
