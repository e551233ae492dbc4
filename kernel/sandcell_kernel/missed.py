"""Output of executions whose end nobody saw, shown under the cell that attaches. Pure.

A front end drops output of cells that it has forgotten, so what was missed gets new
headers: those of the first cell that runs or waits here. Until there is one it is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sandcell_kernel.answers import Answers
from sandcell_kernel.request import Request
from sandcell_wire.execution import first_line, traceback_of
from sandcell_wire.messages import Envelope, Message

MAX_KEPT_BYTES = 16 << 20
"""Most bytes of messages that wait for a cell; the oldest go first."""
MAX_KEPT = 10_000
"""Most messages that wait for a cell."""
MAX_TITLE = 60
"""Most characters of an execution's code that are shown."""
CANNOT_ASK = "sandcell: a cell waits for input, which cannot be given from here; interrupt it\n"
SHOWN = frozenset(
    ("stream", "display_data", "execute_result", "update_display_data", "clear_output", "error")
)


class Missed:
    """What was missed, and still goes on."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._open: dict[str, int | None] = {}
        """Those that have not ended for us, and the numbers of the ends that are known."""
        self.lossy = False
        """Messages were lost since we caught up last, perhaps ends."""
        self._clears = False
        """Whether `clear_output` clears what is shown: never another execution's output."""
        self._kept: deque[tuple[str, Message]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._question: Message | None = None
        self._asked: dict[str, bytes] = {}
        """Cells under which questions were asked → the parent header that answers must have."""

    def expect(self, msg_ids: Sequence[str], ends: Sequence[int | None] = ()) -> None:
        """The session is about to send what it has of these executions.

        `ends` are the numbers of those that have ended: their last messages may be lost.
        """
        known = dict(zip(msg_ids, ends, strict=False))
        self._open = {name: known.get(name) for name in msg_ids}
        self._clears = len(msg_ids) == 1

    def caught_up(self) -> None:
        """Everything has come. After a loss nobody knows which of the others go on."""
        for name, end in list(self._open.items()):
            if self.lossy or end is not None:
                del self._open[name]
        self.lossy = False

    @property
    def follows(self) -> bool:
        """Whether one of them has not ended yet."""
        return bool(self._open)

    def clear(self) -> None:
        """The session is another one, or gone."""
        self._open.clear()
        self._kept.clear()
        self._bytes = self._dropped = 0
        self._question = None
        self._asked.clear()

    def take(self, head: Envelope, message: Message, host: Request | None) -> bool:
        """Show it under `host`, or keep it; False when it is not of a missed execution."""
        if head.parent_id not in self._open:
            return False
        if head.msg_type == "status":
            if message.content_if_any().get("execution_state") == "idle":
                self._open.pop(head.parent_id)
        elif head.msg_type in ("execute_input", *SHOWN):
            if host is None:
                self._keep(head.msg_type, message)
            else:
                self._show(host, head.msg_type, message)
        else:
            return False
        return True

    def ask(self, question: Message, host: Request | None) -> None:
        """Somebody else's cell waits for input and we are to answer: ask under `host`, or later."""
        if host is None:
            self._question = question
        elif host.takes_questions:
            self._asked[host.msg_id] = question.parent_header
            self._answers.ask(host, question)
        else:
            self._answers.say(host, CANNOT_ASK)

    def answer(self, answer: Request) -> None:
        """Give an answer the parent that the session knows."""
        parent = self._asked.pop(answer.envelope.parent_id, None)
        if parent is not None:
            answer.message.parent_header = parent

    def _keep(self, msg_type: str, message: Message) -> None:
        self._kept.append((msg_type, message))
        self._bytes += message.size
        while len(self._kept) > MAX_KEPT or (self._bytes > MAX_KEPT_BYTES and len(self._kept) > 1):
            self._bytes -= self._kept.popleft()[1].size
            self._dropped += 1

    def flush(self, host: Request) -> None:
        """Show under `host` what was kept."""
        if self._dropped:
            text = f"sandcell: {self._dropped} messages before these; %sandbox replay shows them\n"
            self._answers.say(host, text)
        for msg_type, message in self._kept:
            self._show(host, msg_type, message)
        self._kept.clear()
        self._bytes = self._dropped = 0
        question, self._question = self._question, None
        if question is not None:
            self.ask(question, host)

    def _show(self, host: Request, msg_type: str, message: Message) -> None:
        if msg_type == "execute_input":
            self._answers.say(host, f"sandcell: {_title(message)}\n")
        elif msg_type == "error":
            # As text: an `error` would make it the failure of a cell that did not fail.
            self._answers.say(host, "\n".join(traceback_of(message.content_if_any())) + "\n")
        elif msg_type != "clear_output" or self._clears:
            # A result belongs to its own cell's prompt.
            shown = "display_data" if msg_type == "execute_result" else msg_type
            self._answers.pass_on(host, shown, message)


def _title(message: Message) -> str:
    content = message.content_if_any()
    first, is_cut = first_line(str(content.get("code", "")), MAX_TITLE)
    more = "…" if is_cut else ""
    return f"missed output of In [{content.get('execution_count')}]: {first}{more}"
