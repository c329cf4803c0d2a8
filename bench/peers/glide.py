"""valkey-glide without a library: the same script as raw redis-py's, over its one multiplexed connection."""

from __future__ import annotations

from urllib.parse import urlsplit

from glide import GlideClient, GlideClientConfiguration, NodeAddress, Script

from bench.peers.raw import SCRIPT, HandWritten


class Glide(HandWritten):
    """One EVALSHA per check."""

    async def setup(self) -> None:
        """Connect; the script is loaded by the first call."""
        await super().setup()
        url = urlsplit(self.url)
        configuration = GlideClientConfiguration(
            [NodeAddress(url.hostname or "", url.port or 6379)],
            # A saturated client answers late, not with errors.
            request_timeout=60_000,
            inflight_requests_limit=1_000_000,
        )
        self._client = await GlideClient.create(configuration)
        self._script = Script(SCRIPT)

    async def check(self, name: str, by: str) -> bool:
        """Send one EVALSHA."""
        reply = await self._client.invoke_script(self._script, [f"log:{name}:{by}"], list(self.arguments(name)))
        return bool(reply)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
