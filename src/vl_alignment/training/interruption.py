"""Ctrl-C and kill, turned into a wish to stop that the training loop reads between two steps."""

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["InterruptionGuard", "TrainingInterrupted"]


class TrainingInterrupted(KeyboardInterrupt):  # noqa: N818 - named as KeyboardInterrupt is
    """Training stopped on request after writing a checkpoint; running the same command again goes on from there."""


class InterruptionGuard:
    """Context in which the first SIGINT or SIGTERM only sets `requested`; the second one acts as it always did.

    Outside the main thread signals cannot be caught, and nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "InterruptionGuard":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # A handler that Python did not install reads back as None and cannot be set again.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}
