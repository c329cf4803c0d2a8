"""What is paused by name and configured at run time, the same in every process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ratelimit_async._catalog import decode_change
from ratelimit_async._errors import RateLimitError
from ratelimit_async._spelling import parse_label

if TYPE_CHECKING:
    from ratelimit_async._catalog import Catalog
    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._keys import KeyNames, Reconfigured
    from ratelimit_async._scripts import ControlState, Scripts

__all__ = ["Control"]


class Followers(Protocol):
    """Who is told."""

    def on_pauses(self) -> None:
        """Other names are paused than before."""

    def on_configured(self, keys: list[Reconfigured]) -> None:
        """These keys are configured differently."""

    def on_unreadable(self, label: str, error: Exception) -> None:
        """What somebody configured cannot be read here."""


class Control:
    """Follows what Redis holds, and changes it."""

    def __init__(self, scripts: Scripts, names: KeyNames, catalog: Catalog, followers: Followers, lease: float) -> None:
        """Know nothing yet; lease in seconds, within which every process reads."""
        # Of this prefix, last seen alive; this one is, unless it does not count.
        self.processes = 1
        self.alive = 0
        self._lease = lease
        self._settled = 0.0
        self._scripts = scripts
        self._names = names
        self._catalog = catalog
        self._followers = followers
        self._version = -1
        self._read: dict[str, tuple[str, RateLimitConfig]] = {}

    async def read(self) -> None:
        """Take over what has changed."""
        self._follow(await self._scripts.read_control(self._names.control, self._version))

    async def leave(self) -> None:
        """Count as alive no longer."""
        await self._scripts.leave(self._names.control)

    def on_outage_over(self) -> None:
        """Believe no smaller number of processes until all have had the time to show themselves."""
        self._settled = asyncio.get_running_loop().time() + self._lease

    async def pause(self, name: str, seconds: float | None) -> None:
        """Pause a name; None: until resumed, 0: resume."""
        field = self._names.pause_field(name)
        self._follow(await self._scripts.pause_name(self._names.control, field, seconds))

    async def configure(self, name: str, by: str | None, text: str) -> None:
        """Configure a name or key; '' for what it was built with."""
        field = self._names.change_field(name, by)
        self._follow(await self._scripts.configure(self._names.control, field, text))

    def _follow(self, state: ControlState) -> None:
        self.alive = state.alive
        if state.alive > self.processes or asyncio.get_running_loop().time() > self._settled:
            self.processes = max(state.alive, 1)
        if state.pauses is None or state.changes is None:
            return
        self._version = state.version
        if state.pauses != self._names.pauses:
            self._names.pauses.clear()
            self._names.pauses.update(state.pauses)
            self._followers.on_pauses()
        before, self._read = self._read, {}
        for label, text in state.changes.items():
            known = before.get(label)
            # The same text stays the same object, so that its keys stay as they are.
            if known is None or known[0] != text:
                try:
                    known = text, decode_change(text, parse_label(label)[0])
                except (RateLimitError, ValueError, RecursionError) as error:
                    # A newer version may write what this one cannot read: what holds here goes on holding.
                    self._followers.on_unreadable(label, error)
            if known is not None:
                self._read[label] = known
        if self._read != before:
            self._catalog.change({parse_label(label): config for label, (_, config) in self._read.items()})
            self._followers.on_configured(self._names.reconfigure())
