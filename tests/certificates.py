"""Certificates for tests: an authority, a server's and a client's, and an authority that nobody should believe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

HOST = "localhost"


class Certificates:
    """Files in a directory; the server's certificate is for HOST only, not for its number."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.stranger = directory / "ca.pem", directory / "stranger.pem"
        self.server, self.client = directory / "server.pem", directory / "client.pem"
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        stranger.cert_pem.write_to_path(self.stranger)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(self.server)
        authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(self.client)

    @property
    def options(self) -> list[str]:
        """What redis-server is told beside its port."""
        files = {"cert": self.server, "key": self.server, "ca-cert": self.authority}
        return [word for kind, file in files.items() for word in (f"--tls-{kind}-file", str(file))]
