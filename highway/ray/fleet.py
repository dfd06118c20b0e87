"""The actors of one pipeline: starts, watches, replaces and ends them, and follows the decisions of `Scaling`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from highway.engine.stats import PipelineStats
from highway.errors import RemoteError
from highway.ray import scaling
from highway.ray.actor import Place
from highway.ray.scaling import Figures, Scaling

__all__ = ["Fleet"]

# Seconds between two looks at the actors.
TICK = 0.25
# Seconds that a worker has to live for its death to be one of a machine, not of its start.
QUICK = 10.0
# Deaths in a row so soon after a start, after which an actor is replaced.
MOST_QUICK = 5
# Seconds before it is replaced; doubled each time, up to the second.
PAUSE, LONGEST_PAUSE = 2.0, 60.0
# Failed starts in a row, without one that worked, after which the pipeline fails.
MOST_FAILED = 3
# Seconds without room in the cluster before a line in the log says so.
SCARCE = 30.0
# Seconds for the last batches of a worker that is given back, and for the end of workers at the end.
DRAIN, FAREWELL = 30.0, 0.7
# Seconds to wait for the thread here.
JOIN = 1.5

logger = logging.getLogger("highway.ray")


@dataclass(eq=False)
class _Member:
    """An actor. Of `where` and `run` one is pending: it starts, or it works."""

    number: int
    handle: Any
    where: Any
    run: Any = None
    drain: Any = None
    place: Place | None = None
    begun: float = 0.0
    asked: float = 0.0
    quick: int = 0
    scarce: bool = False

    @property
    def text(self) -> str:
        place = self.place
        return f"worker {self.number}" + (f" ({place.host}, process {place.process})" if place else "")


class Fleet:
    """The actors of one pipeline, and the thread that watches them.

    Parameters
    ----------
    ray : module
    name : str
        For the log.
    make : callable
        Returns the handle of a new actor.
    plan : Scaling
    needs : str
        What an actor needs of a node, for the log.
    stats : callable
        Returns the statistics of the pipeline; None once it is gone.
    fail : callable
        Ends the pipeline with an exception.
    """

    def __init__(
        self,
        ray: Any,
        name: str,
        make: Callable[[], Any],
        plan: Scaling,
        needs: str,
        stats: Callable[[], PipelineStats | None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._ray = ray
        self._name = name
        self._make = make
        self._plan = plan
        self._needs = needs
        self._stats = stats
        self._fail = fail
        self.wanted = plan.low
        self._members: list[_Member] = []
        self._number = 0
        self._worked = False
        self._failed = 0
        self._pause, self._not_before = PAUSE, 0.0
        self._since: PipelineStats | None = None
        self._measured = 0.0
        self._over = False
        # Not an event: `stop` may be called by the garbage collector, in the middle of any code.
        self._closing = False
        self._closed = threading.Lock()
        self._closed.acquire()
        self._thread = threading.Thread(target=self._watch, name=f"highway {name}", daemon=True)

    def start(self) -> None:
        """Start the workers, without waiting for them."""
        self._thread.start()

    def stop(self) -> None:
        """End all workers. You may call it again, from any thread."""
        self._closing = True
        with suppress(RuntimeError):
            self._closed.release()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(JOIN)

    @property
    def places(self) -> list[Place]:
        """Where workers run now."""
        return [member.place for member in list(self._members) if member.run is not None and member.place]

    # The thread

    def _watch(self) -> None:
        try:
            while not self._closing and self._ray.is_initialized():
                now = time.monotonic()
                self._look(now)
                self._replenish(now)
                self._scale(now)
                pending = self._pending()
                if pending:
                    self._ray.wait(pending, timeout=TICK)
                else:
                    self._closed.acquire(timeout=TICK)
        except Exception as error:
            # Nobody else would notice: the pipeline would wait for workers.
            if not self._closing:
                logger.exception("%s: the watch over the workers has ended", self._name)
                self._fail(error)
        finally:
            self._end_all()

    def _pending(self) -> list[Any]:
        members = self._members
        return [ref for each in members for ref in (each.where, each.run, each.drain) if ref is not None]

    def _look(self, now: float) -> None:
        pending = self._pending()
        if not pending:
            return
        ready = set(self._ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        for member in list(self._members):
            if member.drain in ready:
                self._drained(member)
            elif member.where in ready:
                self._started(member, now)
            elif member.run in ready:
                self._stopped(member, now)
            elif member.where is not None and not member.scarce and now - member.asked > SCARCE:
                member.scarce = True
                logger.warning(
                    "%s: %s has waited for %.0f s to start: it needs %s, and the cluster has %s free; it starts when "
                    "a node has room",
                    self._name,
                    member.text,
                    now - member.asked,
                    self._needs,
                    self._free(),
                )

    def _free(self) -> str:
        found = self._ray.available_resources()
        return ", ".join(f"{name} {amount:g}" for name, amount in sorted(found.items()) if ":" not in name)

    def _started(self, member: _Member, now: float) -> None:
        """An actor has begun to work, or never will."""
        exceptions = self._ray.exceptions
        try:
            place = self._ray.get(member.where)
        except exceptions.RayError as error:
            self._members.remove(member)
            self._refused(member, error, now)
            return
        again = "again " if member.place is not None else ""
        member.place, member.where, member.begun = place, None, now
        member.run = member.handle.run.options(max_task_retries=0).remote()
        self._worked, self._failed = True, 0
        logger.info("%s: %s works %son node %s", self._name, member.text, again, place.node[:8])

    def _refused(self, member: _Member, error: Exception, now: float) -> None:
        self._kill(member)
        self._failed += 1
        reason = _reason(error)
        logger.warning("%s: worker %d cannot start: %s", self._name, member.number, reason)
        if not self._worked and self._failed >= MOST_FAILED:
            raise RemoteError(
                f"{self._name}: {self._failed} workers in a row could not start, and none has worked: {reason}; "
                "expected nodes with Highway and the packages of the modules, the same versions as here "
                "(runtime_env=)"
            )
        self._rest(now)

    def _stopped(self, member: _Member, now: float) -> None:
        """The process of an actor has died, or its worker has ended."""
        try:
            failure = self._ray.get(member.run)
        except self._ray.exceptions.RayError:
            failure, died = "its process died, or its node was lost", True
        else:
            died = False
        if not died and not failure:
            # The training has taken the last batch.
            self._members.remove(member)
            self._kill(member)
            self._over = True
            return
        lived = now - member.begun
        member.quick = member.quick + 1 if lived < QUICK else 0
        logger.warning(
            "%s: %s has ended after %.1f s: %s; its batches are made elsewhere, and Ray starts it again",
            self._name,
            member.text,
            lived,
            failure,
        )
        member.run = None
        if member.quick >= MOST_QUICK:
            self._members.remove(member)
            self._kill(member)
            self._rest(now)
            logger.warning(
                "%s: worker %d died %d times in a row within %.0f s of its start: another one starts in %.0f s",
                self._name,
                member.number,
                member.quick,
                QUICK,
                self._not_before - now,
            )
            return
        if lived >= QUICK:
            self._pause = PAUSE
        if not died:
            self._ray.kill(member.handle, no_restart=False)
        member.where, member.asked, member.scarce = member.handle.where.remote(), now, False

    def _rest(self, now: float) -> None:
        """Start no worker for some time, longer each time."""
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _drained(self, member: _Member) -> None:
        try:
            self._ray.get(member.drain)
        except self._ray.exceptions.RayError as error:
            logger.info("%s: %s was not drained: %s", self._name, member.text, _reason(error))
        self._members.remove(member)
        self._kill(member)
        logger.info("%s: %s was given back", self._name, member.text)

    def _kill(self, member: _Member) -> None:
        self._ray.kill(member.handle, no_restart=True)

    # How many there are

    @property
    def _staying(self) -> list[_Member]:
        return [member for member in self._members if member.drain is None]

    def _replenish(self, now: float) -> None:
        if self._over or now < self._not_before:
            return
        for _ in range(self.wanted - len(self._staying)):
            self._number += 1
            handle = self._make()
            self._members.append(_Member(self._number, handle, handle.where.remote(), asked=now))

    def _scale(self, now: float) -> None:
        staying = self._staying
        leaving = len(staying) - self.wanted
        if leaving > 0:
            # The newest first; those that do not work yet before all others.
            for member in sorted(staying, key=lambda each: (each.run is None, each.number))[-leaving:]:
                self._give_back(member)
        if self._plan.low == self._plan.high:
            return
        settled = len(self._members) == self.wanted and all(each.run is not None for each in self._members)
        stats = self._stats() if settled else None
        if stats is None:
            self._since = None
        elif self._since is None:
            self._since, self._measured = stats, now
        elif now - self._measured >= scaling.SPAN:
            change = self._plan.decide(now, self.wanted, _figures(stats, self._since))
            self._since, self._measured = stats, now
            if change is not None:
                logger.info(
                    "%s: from %d to %d workers: %s", self._name, self.wanted, change.workers, change.reason
                )
                self.wanted = change.workers

    def _give_back(self, member: _Member) -> None:
        if member.run is None:
            self._members.remove(member)
            self._kill(member)
        else:
            member.run = None
            member.drain = member.handle.drain.options(max_task_retries=0).remote(DRAIN)

    def _end_all(self) -> None:
        """End all actors: gently where they answer at once, then by Ray."""
        members, self._members = self._members, []
        if not members or not self._ray.is_initialized():
            return
        # What fails here is a cluster that is gone, and its actors with it.
        with suppress(Exception):
            # A process that ends by itself takes its own child processes and files along.
            goodbyes = [
                member.handle.stop.options(max_task_retries=0).remote()
                for member in members
                if member.where is None
            ]
            if goodbyes:
                self._ray.wait(goodbyes, num_returns=len(goodbyes), timeout=FAREWELL)
        for member in members:
            with suppress(Exception):
                self._kill(member)


def _figures(stats: PipelineStats, since: PipelineStats) -> Figures:
    recent = stats.since(since)
    cores = sum(machine.cpu for machine in recent.machines if machine.role == "worker")
    return Figures(recent.exposed_wait or 0.0, recent.delivered / max(recent.seconds, 1e-9), cores)


def _reason(error: BaseException) -> str:
    """Return the last line of an error of Ray that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
