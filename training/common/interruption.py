"""Stop on a signal, but after the current step, with everything saved."""

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """Within this context the first SIGINT or SIGTERM only sets `requested`; the second acts at once."""

    def __init__(self) -> None:
        self.requested = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def request(self, *_: int | FrameType | None) -> None:
        self.requested = True
        self.restore()

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self.before.clear()
