"""The page by itself, for a limiter that other processes use."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys

from ratelimit_async import ConfigurationError, RateLimiter
from ratelimit_async.contrib.dashboard._app import dashboard

__all__ = ["serve"]

TOKEN_VARIABLE = "DASHBOARD_TOKEN"  # noqa: S105 - its name


async def serve(
    limiter: RateLimiter,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    read_only: bool = True,
    interval: float = 2.0,
) -> None:
    """Serve the page until SIGINT or SIGTERM; this process grants for nobody and runs no tasks.

    Args:
        limiter: What to show; it must not have been entered.
        host: Where to listen; by default only for this machine.
        port: The TCP port.
        token: As `dashboard` takes it; by default the environment's DASHBOARD_TOKEN, or else a new one, which is
            printed as part of the page's address.
        read_only: As `dashboard` takes it.
        interval: As `dashboard` takes it.

    Raises:
        ConfigurationError: If an argument cannot be used, or the port is taken.
        RedisUnavailable: If Redis cannot be reached at the start.
    """
    try:
        import uvicorn
    except ImportError as error:
        message = 'serving the dashboard needs uvicorn: pip install "ratelimit-async[dashboard]"'
        raise ImportError(message) from error
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
        raise ConfigurationError("port", port, "must be from 1 to 65535")
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    made = secrets.token_urlsafe(24) if token is None else ""
    app = dashboard(limiter, token=token or made, read_only=read_only, interval=interval)
    limiter.only_look()
    config = uvicorn.Config(app, host, port, log_level="warning", lifespan="off", ws="none", server_header=False)
    with _listen(host, port) as listening:
        async with limiter:
            where = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            # Behind the '#' it is sent to no server and stands in no log.
            print(f"The dashboard is at {where}{f'#token={made}' if made else ''}", flush=True)
            if not _is_local(host):
                print("It is open to other machines: put a proxy with TLS before it.", file=sys.stderr, flush=True)
            await uvicorn.Server(config).serve([listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError("port", port, f"cannot be listened on at {host}: {error.strerror}") from None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
