"""What a check awaits for its reply, without a turn of the event loop between the two."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

__all__ = ["Resumption", "resumptions"]


class Resumption(msgspec.Struct, eq=False):
    """A future for one task, which awaits it at once and goes on within `set_result`.

    For an asyncio.Future the loop makes a handle, a tenth of what a check costs its client. Set the result in a
    callback of the loop: in a task no other can go on. Tasks know a future by the names that asyncio.isfuture tells of.
    """

    _loop: asyncio.AbstractEventLoop
    # What a task can be woken with: it looks whether that is done.
    _done_future: asyncio.Future[None]
    _asyncio_future_blocking: bool = False
    _done: bool = False
    _result: Any = None
    _error: BaseException | None = None
    _wake: Callable[[asyncio.Future[None]], object] | None = None
    _context: Context | None = None

    def __await__(self) -> Generator[Resumption, None, Any]:
        """Wait for the result, or raise what came instead."""
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        if self._error is not None:
            try:
                raise self._error
            finally:
                # Its traceback knows this frame.
                del self
        return self._result

    def add_done_callback(self, wake: Callable[[asyncio.Future[None]], object], *, context: Context) -> None:
        """Keep how the task is woken that begins to wait."""
        self._wake, self._context = wake, context

    def done(self) -> bool:
        """Whether it has a result or an error, or was cancelled."""
        return self._done

    def set_result(self, result: Any) -> None:
        """Let the task go on, until it waits again."""
        self._done, self._result = True, result
        self._resume()

    def set_exception(self, error: BaseException) -> None:
        """Let the task go on soon; whoever sets this may be a task."""
        self._done, self._error = True, error
        self._loop.call_soon(self._resume)

    def cancel(self, msg: Any = None) -> bool:
        """Raise CancelledError in the task, unless it has what it waits for."""
        if self._done:
            return False
        self.set_exception(asyncio.CancelledError(*() if msg is None else (msg,)))
        return True

    def _resume(self) -> None:
        if self._wake is None or self._context is None:
            return
        try:
            self._context.run(self._wake, self._done_future)
        except BaseException as error:  # noqa: BLE001 - it ends the loop, not what others are being told
            self._loop.call_soon(_raise, error)


def _raise(error: BaseException) -> NoReturn:
    raise error


def resumptions() -> Callable[[], Resumption]:
    """Give what makes them for tasks of the running loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    done.set_result(None)
    return partial(Resumption, loop, done)
