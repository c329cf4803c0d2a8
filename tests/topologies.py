"""Real Sentinel and Cluster setups for tests: on free ports of 127.0.0.1, gone with the test process."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "mymaster"
SLOTS = 16384


def until(predicate: Callable[[], object], what: str, bound: float = 30.0) -> None:
    """Poll until something is true; what cannot be asked yet is not true."""
    end = time.monotonic() + bound
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if predicate():
                return
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {bound} s")
        time.sleep(0.02)


class SentinelServer(RedisServer):
    """One redis-sentinel."""

    def __init__(self, primary: int, password: str = "") -> None:
        super().__init__()
        retry = Retry(NoBackoff(), 0)
        self.client.close()
        self.client = redis.Redis(
            port=self.port,
            password=password or None,
            decode_responses=True,
            protocol=2,
            socket_connect_timeout=1,
            retry=retry,
        )
        self._config = Path(self._directory) / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._directory}",
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 2000",
            f"sentinel parallel-syncs {NAME} 2",
        ]
        if password:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        self._config.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return ["redis-server", str(self._config), "--sentinel"]


class SentinelSetup:
    """One primary, two replicas, three sentinels that notice a death within half a second."""

    def __init__(self, password: str = "") -> None:
        quick = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        first = RedisServer(*quick)
        follow = ("--replicaof", f"127.0.0.1 {first.port}")
        self.servers = [first, RedisServer(*quick, *follow), RedisServer(*quick, *follow)]
        self.sentinels = [SentinelServer(first.port, password) for _ in range(3)]
        self._password = password

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        options = f"?sentinel_password={self._password}" if self._password else ""
        return f"redis+sentinel://{hosts}/{NAME}/0{options}"

    @property
    def primary(self) -> RedisServer:
        """The primary by the word of the first sentinel that answers."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError):
                _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                return next(server for server in self.servers if server.port == int(port))
        raise RuntimeError("no sentinel answers")

    def __enter__(self) -> Self:
        try:
            for server in (*self.servers, *self.sentinels):
                server.start()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()

    def wait_ready(self) -> None:
        """Wait until all sentinels agree on a primary with two replicas that follow, and know of each other."""
        until(self._ready, "sentinels")

    def _ready(self) -> bool:
        primary = self.primary
        replication = primary.client.info("replication")
        online = [replication.get(f"slave{n}", {}).get("state") for n in range(2)]
        if replication["role"] != "master" or online != ["online", "online"]:
            return False
        # To its primary one is online that has yet to load what it was sent.
        links = [server.client.info("replication").get("master_link_status") for server in self.servers]
        if links.count("up") != 2:
            return False
        for sentinel in self.sentinels:
            reply = sentinel.call("SENTINEL", "MASTER", NAME)
            known = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            seen = [str(known[field]) for field in ("port", "flags", "num-slaves", "num-other-sentinels")]
            if seen[0] != str(primary.port) or seen[2:] != ["2", "2"]:
                return False
        return True

    def wait_back(self, server: RedisServer) -> None:
        """Wait until a server that was started again follows; left to the sentinels that takes many seconds."""

        def followed() -> bool:
            primary = self.primary.port
            if primary != server.port and server.client.info("replication").get("master_port") != primary:
                server.call("REPLICAOF", "127.0.0.1", primary)
            return self._ready()

        until(followed, "sentinels")

    def kill_primary(self, _slot: int = 0) -> RedisServer:
        """Kill -9; give the server that is gone."""
        server = self.primary
        server.kill()
        return server


class ClusterSetup:
    """Three primaries with a replica each, which notice a death within a second."""

    def __init__(self) -> None:
        # Where slots were moved to.
        self._moved: dict[int, RedisServer] = {}
        self.servers = [
            RedisServer(
                *("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"),
                *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
                *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
            )
            for _ in range(6)
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            self._create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop()

    def _create(self) -> None:
        primaries, replicas = self.servers[:3], self.servers[3:]
        for number, server in enumerate(primaries):
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            server.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, server in enumerate(self.servers):
            server.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            port = self.servers[0].client.config_get("cluster-port")["cluster-port"]
            server.call("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, port)
        until(lambda: all(len(self._nodes(server)) == 6 for server in self.servers), "cluster")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", self.id_of(primary))
        self.wait_ready()

    def _nodes(self, server: RedisServer) -> list[list[str]]:
        return [line.split() for line in server.call("CLUSTER", "NODES").splitlines()]

    def id_of(self, server: RedisServer) -> str:
        return str(server.call("CLUSTER", "MYID"))

    def wait_ready(self) -> None:
        """Wait until all nodes see three primaries, each with a replica that follows, and agree on who owns what."""
        until(self._ready, "cluster")

    def _ready(self) -> bool:
        views = []
        for server in self.servers:
            nodes = self._nodes(server)
            flags = [set(node[2].split(",")) - {"myself"} for node in nodes]
            if sorted(map(sorted, flags)) != [["master"]] * 3 + [["slave"]] * 3:
                return False
            views.append(sorted((node[0], *node[8:]) for node in nodes))
            replication = server.client.info("replication")
            if replication["role"] == "master" and replication.get("slave0", {}).get("state") != "online":
                return False
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
            if "cluster_state:ok" not in server.call("CLUSTER", "INFO"):
                return False
        return all(view == views[0] for view in views)

    def owner_of(self, slot: int) -> RedisServer:
        """The primary that says that a slot is its own; for a moment of a failover, none does."""
        for _ in range(500):
            for server in self.servers:
                with contextlib.suppress(redis.RedisError):
                    for node in self._nodes(server):
                        if "myself" in node[2] and "master" in node[2] and slot in _slots(node[8:]):
                            return server
            time.sleep(0.02)
        raise RuntimeError(f"nobody owns slot {slot}")

    def refusals(self) -> dict[str, int]:
        """How often the nodes have said MOVED, ASK, TRYAGAIN and so on."""
        counts: dict[str, int] = {}
        for server in self.servers:
            for name, stat in server.client.info("errorstats").items():
                counts[name] = counts.get(name, 0) + stat["count"]
        return {name.removeprefix("errorstat_"): count for name, count in counts.items()}

    def primaries(self) -> list[RedisServer]:
        return [server for server in self.servers if server.client.info("replication")["role"] == "master"]

    def wait_back(self, _server: RedisServer) -> None:
        """Wait until a server that was started again follows whoever took over."""
        self.wait_ready()

    def kill_primary(self, slot: int = 0) -> RedisServer:
        """Kill -9 the owner of a slot; give the server that is gone."""
        server = self.owner_of(slot)
        server.kill()
        # Another one owns its slots from now on.
        self._moved.clear()
        return server

    def reshard(self, slot: int, to: RedisServer, pause: float = 0.0) -> None:
        """Move a slot as redis-cli does, key by key; `pause`, s, before the keys move and after."""
        with contextlib.suppress(RuntimeError):
            until(self._settled, "epochs", bound=5)
        source = self.owner_of(slot)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))
        time.sleep(pause)
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.call("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        time.sleep(pause)
        others = [server for server in self.primaries() if server not in (to, source)]
        self._moved[slot] = to
        # Gossip that was under way may undo it for some, and moves before it, too: said again until all agree. Epochs
        # that were raised at once are the same for a moment: a move before that is settled loses the slot.
        for _ in range(10):
            for moved, owner in self._moved.items():
                for server in (to, source, *others):
                    with contextlib.suppress(redis.ResponseError):
                        server.call("CLUSTER", "SETSLOT", moved, "NODE", self.id_of(owner))
            with contextlib.suppress(RuntimeError):
                until(self._settled, "epochs", bound=2)
                return
            for owner in set(self._moved.values()):
                owner.call("CLUSTER", "BUMPEPOCH")
                time.sleep(0.2)
        views = {server.port: self._view(server) for server in self.primaries()}
        raise RuntimeError(f"slot {slot} finds no owner: {views}")

    def _settled(self) -> bool:
        """Whether all primaries see the same primaries, with slots and distinct epochs."""
        views = [self._view(server) for server in self.primaries()]
        return all(view == views[0] for view in views) and len({view[1] for view in views[0]}) == len(views[0])

    def _view(self, server: RedisServer) -> list[tuple[str, ...]]:
        """Who are the primaries, with which epochs and slots, by the word of one of them."""
        nodes = [node for node in self._nodes(server) if "master" in node[2]]
        return sorted((node[0], node[6], *(text for text in node[8:] if text[0] != "[")) for node in nodes)


def slot_of(prefix: str, name: str, by: str = "") -> int:
    """The slot of a plain name's keys."""
    return int(key_slot(f"{{{prefix}:{name}:{by}}}:d".encode()))


def _slots(ranges: list[str]) -> list[int]:
    found: list[int] = []
    for text in ranges:
        # In brackets: on its way.
        if not text.startswith("["):
            first, _, last = text.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found
