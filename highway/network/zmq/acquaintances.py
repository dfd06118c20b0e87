"""Who the peers of a machine are: their names, addresses and reports, and what of it goes to the log."""

from __future__ import annotations

from typing import Any

import zmq

from highway.network.protocol.link import MAX_PEERS, Change
from highway.network.protocol.messages import Hello
from highway.network.zmq.ends import Peer
from highway.network.zmq.security import quoted

__all__ = ["Acquaintances"]

# Most characters of a name.
MOST_NAME = 200
# Most characters of what a machine says that it does.
MOST_MODULES = 1000
# Shortest time between two questions for the reports of the consumers, in seconds.
ASKING = 0.3
# Seconds after which a report of a consumer is no longer shown.
RECENT = 5.0

_WHAT = {"joined": "joined", "left": "left", "died": "was lost: it is silent, or its connection has ended"}


class Acquaintances:
    """Remembers the peers of a machine; used by its socket thread only, except for `reports`.

    Parameters
    ----------
    hello : Hello or None
        What the peers learn about this machine.
    """

    def __init__(self, hello: Hello | None) -> None:
        self.hello = hello
        self._names: dict[Peer, Hello] = {}
        self._addresses: dict[Peer, str] = {}
        self._introduced: set[Peer] = set()
        self._present: set[Any] = set()
        self._reports: dict[Peer, tuple[float, list[dict[str, Any]]]] = {}
        self._asked_at = -1e9

    # What the peers know

    def knows_us(self, peer: Peer) -> bool:
        """Whether this machine has introduced itself on the connection."""
        return peer in self._introduced

    def introduced(self, peer: Peer) -> None:
        """Note that a `Hello` was sent."""
        if len(self._introduced) >= 2 * MAX_PEERS:
            # Peers whose connections ended long ago; the others get another HELLO.
            self._introduced.clear()
        self._introduced.add(peer)

    def reconnected(self, peer: Peer) -> None:
        """Note that the connection of a connecting socket is a new one, perhaps to another process."""
        self._introduced.discard(peer)

    # What is known of them

    def seen(self, peer: Peer, frame: zmq.Frame) -> None:
        """Note the address of a peer, from the last frame of one of its messages."""
        if peer in self._addresses:
            return
        try:
            address = frame.get("Peer-Address")
        except zmq.ZMQError:
            address = ""
        _bounded(self._addresses)[peer] = quoted(str(address))

    def meet(self, peer: Peer, hello: Hello) -> str | None:
        """Note who a peer says that it is; returns a line for the log where it takes the place of another."""
        before = self._names.get(peer)
        name, role, version = (quoted(text)[:MOST_NAME] for text in (hello.name, hello.role, hello.version))
        now = Hello(name, role, version, quoted(hello.modules)[:MOST_MODULES])
        _bounded(self._names)[peer] = now
        if peer in self._present and before not in (None, now):
            assert before is not None
            return f"{self.describe(peer)} took the place of {before.name}"
        return None

    def describe(self, peer: Any) -> str:
        """Return role, name, address and version of a peer, as far as they are known."""
        hello = self._names.get(peer)
        address = self._addresses.get(peer)
        where = f"from {address}" if address else ""
        if hello is None:
            return f"a peer {where or 'of unknown address'}"
        details = ", ".join(filter(None, (where, f"Highway {hello.version}")))
        return f"{_ROLES.get(hello.role, hello.role)} {hello.name} ({details})"

    def introduce(self, peer: Any) -> str:
        """Return the text of `describe`, and what the peer says that it does to make a batch."""
        hello = self._names.get(peer)
        modules = f", with {hello.modules}" if hello is not None and hello.modules else ""
        return self.describe(peer) + modules

    def changed(self, change: Change) -> str | None:
        """Return the line about a change for the log; None where it is not new."""
        peer: Any = change.peer
        if (change.what == "joined") == (peer in self._present):
            return None
        if change.what == "joined":
            if len(self._present) >= 2 * MAX_PEERS:
                self._present.clear()
            self._present.add(peer)
        else:
            self._present.discard(peer)
            self._reports.pop(peer, None)
        why = f": {quoted(change.why)}" if change.why else ""
        return f"{self.describe(peer)} {_WHAT[change.what]}{why}"

    # Reports of the machines downstream, which send none by themselves

    def may_ask(self, now: float) -> bool:
        """Whether it is time to ask the consumers; then they count as asked."""
        if now - self._asked_at < ASKING:
            return False
        self._asked_at = now
        return True

    def report(self, peer: Peer, reports: list[dict[str, Any]], now: float) -> None:
        """Note the answer of a consumer."""
        _bounded(self._reports)[peer] = now, reports

    def reports(self, now: float) -> list[dict[str, Any]]:
        """Return the recent reports of the consumers, and of the machines downstream of them."""
        # A copy in one step: another thread may ask for them.
        return [
            report
            for heard, reports in tuple(self._reports.values())
            if now - heard <= RECENT
            for report in reports
        ]


_ROLES = {"data": "data machine", "trainer": "training machine"}


def _bounded(known: dict[Peer, Any]) -> dict[Peer, Any]:
    """Make room for one more peer, by forgetting the first."""
    if len(known) >= 2 * MAX_PEERS:
        del known[next(iter(known))]
    return known
