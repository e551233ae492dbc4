"""What a cell must show, what it showed, and the difference: lost, duplicated, out of order.

The cell sends one numbered item of output after the other, of every kind that a notebook
knows. What it must send is computed here, apart from the cell.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.support.kernels import Message

Item = tuple[str, str]
"""Kind of output, and what identifies the one."""

KINDS = ("stdout", "display_data", "stdout", "update_display_data", "stderr", "comm", "clear")
"""Item number i is of kind i modulo 7."""
CLEAR = ("clear", "")
"""A clearing as it comes."""
NOTICE = "sandcell: "
"""Lines on stderr that begin so are ours, not the cell's."""

CODE = """
import base64, hashlib, os, sys, time
from IPython.display import clear_output, display, update_display
from comm import create_comm

def body(number):
    return hashlib.sha256(str(number).encode()).digest() * 100

comm = create_comm(target_name='ledger')
for number in range(1, {count} + 1):
    time.sleep({pause})
    match number % 7:
        case 1:
            image = base64.b64encode(body(number)).decode()
            display({{'image/png': image}}, raw=True, display_id='ledger')
        case 3:
            image = base64.b64encode(body(number)).decode()
            update_display({{'image/png': image}}, raw=True, display_id='ledger')
        case 4:
            print(number, file=sys.stderr, flush=True)
        case 5:
            comm.send({{'number': number}}, buffers=[body(number), b'', b'x'])
        case 6:
            clear_output()
        case _:
            print(number, flush=True)
"""


def body(number: int) -> bytes:
    """3,200 bytes that only this number has."""
    return hashlib.sha256(b"%d" % number).digest() * 100


def digest(data: bytes) -> str:
    """Enough to tell bytes apart."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """A cell that sends `count` items with `pause` seconds before each."""

    count: int
    pause: float

    @property
    def code(self) -> str:
        """Its source."""
        return CODE.format(count=self.count, pause=self.pause)

    @property
    def expected(self) -> list[Item]:
        """What it sends."""
        items: list[Item] = []
        for number in range(1, self.count + 1):
            kind = KINDS[number % len(KINDS)]
            if kind in {"stdout", "stderr", "clear"}:
                items.append((kind, str(number)))
            else:
                items.append((kind, digest(body(number))))
        return items


@dataclass
class Seen:
    """Collects what front ends were shown of one cell; `take` is given each iopub message."""

    at: dict[int, Callable[[], None]] = field(default_factory=dict[int, Callable[[], None]])
    """What to do once so many items were shown."""
    items: list[Item] = field(default_factory=list[Item])
    notices: list[str] = field(default_factory=list[str])
    repeated: list[str] = field(default_factory=list[str])
    """Ids of messages that came twice."""
    _ids: set[str] = field(default_factory=set[str])
    _half: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, message: Message) -> None:
        """Note one message."""
        msg_id = message["header"]["msg_id"]
        if msg_id in self._ids:
            self.repeated.append(msg_id)
        self._ids.add(msg_id)
        self.items += self._items(message)
        for count in sorted(count for count in self.at if count <= len(self.items)):
            self.at.pop(count)()

    def _items(self, message: Message) -> list[Item]:
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                return self._lines(content["name"], content["text"])
            case "display_data" | "update_display_data" as kind:
                return [(kind, digest(base64.b64decode(content["data"]["image/png"])))]
            case "comm_msg":
                first, *others = (bytes(buffer) for buffer in message["buffers"])
                whole = others == [b"", b"x"]
                return [("comm", digest(first) if whole else f"broken buffers: {others}")]
            case "clear_output":
                return [CLEAR]
            case "status" | "execute_input" | "comm_open":
                return []
            case other:
                return [(other, str(content)[:200])]

    def _lines(self, name: str, text: str) -> list[Item]:
        if text.startswith(NOTICE):
            self.notices.append(text)
            return []
        *lines, self._half[name] = (self._half.get(name, "") + text).split("\n")
        return [(name, line) for line in lines]

    def ledger(self, expected: Sequence[Item]) -> Ledger:
        """The difference to what was sent."""
        return compare(expected, numbered(expected, self.items), self.repeated)


@dataclass(frozen=True)
class Ledger:
    """The account of one cell. Each list has the items themselves."""

    sent: int
    lost: list[Item]
    duplicated: list[Item]
    out_of_order: list[Item]
    """Those that came after one that was sent later."""
    unexpected: list[Item]
    """What was never sent."""
    repeated: list[str]
    """Ids of messages that came twice."""

    def record(self, record: Callable[[str, object], None], fault: str) -> None:
        """Write it into the test's report, for `scripts/fault-table`."""
        record("fault", fault)
        record("sent", self.sent)
        record("lost", len(self.lost))
        record("duplicated", len(self.duplicated) + len(self.repeated))
        record("out_of_order", len(self.out_of_order))

    @property
    def wrong(self) -> dict[str, list[Item] | list[str]]:
        """What is not as it should be; empty when nothing is."""
        lists: dict[str, list[Item] | list[str]] = {
            "lost": self.lost,
            "duplicated": self.duplicated,
            "out of order": self.out_of_order,
            "unexpected": self.unexpected,
            "repeated": self.repeated,
        }
        return {name: found[:10] for name, found in lists.items() if found}


def numbered(expected: Sequence[Item], got: Sequence[Item]) -> list[Item]:
    """Clearings carry no number: each is taken for the next that is due after what it follows."""
    place = {item: index for index, item in enumerate(expected)}
    last, found = -1, list[Item]()
    for item in got:
        last = place.get(item, last)
        due = (other for other in expected[last + 1 :] if other[0] == "clear")
        found.append(next(due, item) if item == CLEAR else item)
    return found


def compare(expected: Sequence[Item], got: Sequence[Item], repeated: Sequence[str] = ()) -> Ledger:
    """Account for every item."""
    place = {item: index for index, item in enumerate(expected)}
    assert len(place) == len(expected), "items that cannot be told apart"
    counts = Counter(got)
    highest, out_of_order = -1, list[Item]()
    for item in dict.fromkeys(got):
        index = place.get(item, highest)
        if index < highest:
            out_of_order.append(item)
        highest = max(highest, index)
    return Ledger(
        sent=len(expected),
        lost=[item for item in expected if not counts[item]],
        duplicated=[item for item in expected for _ in range(counts[item] - 1)],
        out_of_order=out_of_order,
        unexpected=[item for item in got if item not in place],
        repeated=list(repeated),
    )
