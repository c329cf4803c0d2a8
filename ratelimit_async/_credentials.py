"""Credentials that change: a provider of redis-py's, asked anew for every connection."""

from __future__ import annotations

import asyncio
from typing import cast

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

__all__ = ["Credentials"]


class Credentials(CredentialProvider):
    """Asks a provider; one that only knows the blocking way is asked in a thread."""

    def __init__(self, provider: CredentialProvider) -> None:
        """Ask this one."""
        self._provider = provider
        self._blocking = type(provider).get_credentials_async is CredentialProvider.get_credentials_async

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Ask where it blocks; connections of asyncio do not."""
        return cast("tuple[str, str]", self._provider.get_credentials())

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Ask; a provider that fails is an outage, and its text, which may hold what it knows, is not repeated."""
        try:
            if self._blocking:
                return await asyncio.to_thread(self.get_credentials)
            return cast("tuple[str, str]", await self._provider.get_credentials_async())
        except Exception as error:
            problem = f"the credential provider raised {type(error).__name__}"
            raise AuthenticationError(problem) from error
