"""What a journal does beside appending: a thread's rhythm, and telling of trouble."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Upkeep:
    """Calls `work` in a thread: some time after `soon`, at once after `now`, and on `close`.

    The thread sleeps while there is nothing to do, and begins with the first call.
    """

    def __init__(self, work: Callable[[], None], delay: float) -> None:
        self._work = work
        self._delay = delay
        self._wanted = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """Work within `delay` seconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        if not self._wanted.is_set():
            self._wanted.set()

    def now(self) -> None:
        """Work at once."""
        if not self._urgent.is_set():
            self._urgent.set()
        self.soon()

    def close(self) -> None:
        """Work a last time and end, if there ever was anything to do."""
        if self._thread is not None:
            self._closing = True
            self.now()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        ends = False
        while not ends:
            self._wanted.wait()
            self._urgent.wait(self._delay)
            # What comes from here on is not sure to be seen by this turn: it gets another.
            self._wanted.clear()
            self._urgent.clear()
            ends = self._closing
            try:
                self._work()
            except Exception:
                log.exception("the journal's upkeep failed")


class Trouble:
    """What is wrong with the disk, told once per change. Used by two threads."""

    def __init__(self, calm: float, tell: Callable[[str | None], None]) -> None:
        self._calm = calm
        self._tell = tell
        self._lock = threading.Lock()
        self._found: dict[str, tuple[str, float]] = {}
        self._told: str | None = None

    def __bool__(self) -> bool:
        return self._told is not None

    def found(self, source: str, text: str, now: float) -> None:
        """`source` failed at this time, in seconds."""
        self._change(lambda: self._found.__setitem__(source, (text, now)))

    def works(self, source: str, now: float) -> None:
        """`source` works; trouble is over once it has worked for a while."""
        if source in self._found and now - self._found[source][1] >= self._calm:
            self._change(lambda: self._found.pop(source, None))

    def _change(self, step: Callable[[], object]) -> None:
        with self._lock:
            step()
            text = next((text for text, _ in self._found.values()), None)
            if text == self._told:
                return
            self._told = text
        self._tell(text)
