"""Epochs: which epoch of a pipeline is next, how it begins, and how its batches are taken."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from highway.batch import Batch
from highway.engine.iteration import EpochIterator, superseded
from highway.engine.regrouping import Place
from highway.engine.run import Run
from highway.engine.workers import SourceRunner, clock, whole_epoch_after
from highway.errors import EmptyEpochError, EndOfData, PipelineStateError, QueueClosed, WaitTimeout

__all__ = ["Epochs"]


class Epochs:
    """The epochs of a run, and the only place where the batches of a pipeline without a sink are taken.

    Where the source knows its length, an epoch is a range of tickets; else the epoch numbers of the batches tell the
    epochs apart. Thread-safe.

    Attributes
    ----------
    iteration : int
        Number of the last iteration.
    touched : bool
        Whether batches were taken, or the position was changed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.iteration = 0
        self.touched = False
        # The epoch of the next iteration, if the source knows its length; the ticket of its first batch; and whether
        # only the rest of it is next.
        self._next_epoch = self._next_front = 0
        self._resumed = False
        # The latest iteration, as long as it is in use; None where `Pipeline.dequeue` and the like take the batches.
        self._latest: weakref.ref[EpochIterator] | None = None
        # Epochs from this ticket on are whole, if the source knows its length.
        self._whole_from = 0
        # Epoch of the last batch that was returned; where a source follows the delivery, batches that it rejected.
        self._last_epoch: int | None = None
        self._rejected = 0
        # The number of moves when the user learned that no batches remain.
        self._ended_at: int | None = None
        # The end of the last epoch that was found to be empty, and the number of moves then.
        self._passed = 0, 0
        # First and last ticket from which the next whole epoch is this one, and the ticket after it: kept, as finding
        # it for each batch takes calls.
        self._whole = 0, -1, 0, 0

    # Taking batches

    def take(
        self,
        block: bool = True,
        timeout: float | None = None,
        before: int | None = None,
        reader: int | None = None,
    ) -> Batch:
        """Return the next batch of those with tickets below `before`, while `reader` is the current iteration.

        It makes as few calls as possible: where megabytes move, the caches are cold and each costs microseconds.

        Raises
        ------
        EndOfData, WaitTimeout, QueueClosed
            As `BatchQueue.get`.
        EmptyEpochError
            The data are endless, and all batches of an epoch were skipped.
        """
        run, follower = self._run, self._run.follower
        asked = clock()
        endless = before is None and reader is None and run.endless
        try:
            if not run.started:
                run.start()
            deadline = None if timeout is None else clock() + timeout
            left = timeout
            while True:
                moves, queue = run.moves, run.queue
                first = epoch = end = 0
                if endless:
                    # Not the next ticket: how far that is depends on the speed of the workers.
                    first = queue.reached
                    if self._passed[0] == moves and self._passed[1] > first:
                        first = self._passed[1]
                    since, until, epoch, end = self._whole
                    if not since <= first <= until:
                        epoch, end = whole_epoch_after(first, run.source)
                        self._whole = first, run.source.number_of(epoch), epoch, end
                    before = end
                try:
                    ticket, batch = queue.get(block, left, before, reader)
                except EndOfData:
                    if endless and not run.has_moved(moves, queue) and not self._is_at_end():
                        # Else other threads took the batches.
                        if queue.reached <= first:
                            self._passed = moves, end
                            if not run.source.skips_epoch(epoch):
                                raise self._empty(epoch) from None
                        continue
                    if reader is not None or not run.has_moved(moves, queue):
                        raise
                    # Another thread has dropped the batches, to go on elsewhere.
                    ticket, batch = -1, None
                if run.moving or queue is not run.queue:
                    with run.turn:
                        run.dropped += queue is run.queue and batch is not None
                elif (batch is not None and follower is None) or (
                    ticket >= 0 and self._is_wanted(ticket, batch)
                ):
                    break
                left = None if deadline is None else max(0.0, deadline - clock())
            self._last_epoch = batch.epoch
            self.touched = True
            if run.length and ticket >= self._next_front:
                self._enter(ticket, moves)
        except BaseException:
            run.waits.blocked(clock() - asked)
            raise
        run.waits.took(batch, asked, clock())
        return batch  # type: ignore[no-any-return]

    def _empty(self, epoch: int) -> EmptyEpochError:
        """Return the error to raise where all batches of an epoch of endless data were skipped."""
        source = self._run.source
        return EmptyEpochError(
            f"Pipeline: all {source.batches_in(epoch)} batches of epoch {epoch} were skipped, and {source.name} has "
            "epochs=None; expected one or more. errors and stats() list what was skipped; the next call goes on with "
            "the next epoch"
        )

    def _is_wanted(self, ticket: int, batch: Batch | None) -> bool:
        """Return whether a taken batch is for the user; notifies a source that follows the delivery."""
        wanted = self._run.follower is None or self._run.follower.delivered(ticket)
        if batch is None:
            return False
        if not wanted:
            with self._run.turn:
                self._rejected += 1
        return wanted

    def _enter(self, ticket: int, moves: int) -> None:
        """Note that a batch of a new epoch is returned to the user, taken after so many moves."""
        with self._run.turn:
            if self._run.moves == moves:
                self._set_next(max(self._next_epoch, self._run.source.batch_at(ticket)[0] + 1))
                self._resumed = False
                self._latest = None

    def _set_next(self, epoch: int) -> None:
        """Set the epoch of the next iteration, of a source that knows its length; with `Run.turn` held."""
        self._next_epoch, self._next_front = epoch, self._run.source.number_of(epoch)

    def is_ready(self) -> bool:
        """Whether `take` would return or raise without waiting; see `Pipeline.ready`."""
        queue = self._run.queue
        with suppress(EndOfData, QueueClosed):
            while True:
                try:
                    ticket, batch = queue.peek(block=False)
                except WaitTimeout:
                    return self._run.endless and self._is_empty()
                if batch is not None:
                    break
                # What was skipped is not for the user, and the source is told of it; a batch may follow.
                if queue.take(ticket):
                    self._is_wanted(ticket, None)
        return True

    def _is_empty(self) -> bool:
        """Whether all batches of an epoch of endless data were skipped, for which `take` has not raised yet."""
        moves, queue, source = self._run.moves, self._run.queue, self._run.source
        first = queue.reached
        if self._passed[0] == moves:
            first = max(first, self._passed[1])
        epoch, end = whole_epoch_after(first, source)
        return queue.next_ticket >= end and not source.skips_epoch(epoch)

    def forever(self) -> Iterator[Batch]:
        """Iterate to the end of the data; raises EndOfData if there is no batch. See `Pipeline.forever`."""
        if self.is_over("forever()"):
            raise self.ended("forever()")
        return self._forever(self._taken())

    def _forever(self, taken: int) -> Iterator[Batch]:
        while True:
            try:
                batch = self.take()
            except EndOfData:
                if self._taken() == taken:
                    raise self.ended("forever()") from None
                self._ended_at = self._run.moves
                return
            except QueueClosed:
                break
            yield batch
            del batch
        raise self._run.outcome.error("forever()")

    def _taken(self) -> int:
        """Return the number of batches that were returned to the user."""
        return int(self._run.queue.measures()["batches"]) - self._rejected - self._run.dropped

    # The end of the data

    def is_over(self, what: str) -> bool:
        """Whether the data has ended and every batch was returned, in a pipeline that was not stopped since.

        While another thread goes on elsewhere, there are no batches either: this waits until it does.
        """
        if not self._is_at_end():
            return False
        self._run.refuse_own_thread(what)
        with self._run.turn:
            return self._is_at_end()

    def _is_at_end(self) -> bool:
        queue = self._run.queue
        total = queue.last_total
        return total is not None and queue.next_ticket >= total and not self._run.control.closing

    def ended(self, what: str) -> EndOfData:
        """Return the error to raise where no batches remain."""
        run = self._run
        self._ended_at = run.moves
        source, length, first = run.source, run.length, run.first_ticket
        total, taken = run.queue.last_total, self._taken()
        if total is None:
            total = source.number_of(source.epochs or 0) if length else 0
        skipped = sum(worker.skipped_batches for runner in run.runners for worker in runner.workers)
        begin, last = 0, self._last_epoch or 0
        if length:
            begin, last = (source.batch_at(ticket)[0] for ticket in (first, max(first, total - 1)))
        of = f"epoch {begin}" if begin == last else f"epochs {begin} to {last}"
        if taken and run.regroups:
            # A new epoch may have dropped some, and how many an epoch has is unknown.
            found = f"no batch remains, after {taken} were delivered"
            found += f"; {skipped} more were skipped, see stats()" if skipped else ""
        elif taken:
            found = f"all batches were delivered, {taken} of {of}"
            found += f"; {skipped} more were skipped, see stats()" if skipped else ""
        elif skipped:
            found = f"all {skipped} batches of {of} were skipped, see errors and stats()"
        elif length:
            found = f"there are no batches from epoch {begin} on"
        elif source.follows_delivery:
            found = "no batches arrived: there are none, or the data machine skipped all, see stats() there"
        else:
            found = "there are no batches"
        return EndOfData(
            f"Pipeline.{what}: {found}. For more, use a larger epochs= of its source or epochs=None for endless data; "
            "epoch(n) begins an earlier epoch again"
        )

    # Beginning an epoch

    def iterator(self, epoch: int | None, what: str) -> EpochIterator:
        """Return an iterator over an epoch, or over the next one; begins nothing."""
        run = self._run
        if run.length is None and not run.ordered and run.source.follows_delivery:
            raise self._no_epochs(what)
        if run.control.closing:
            raise run.outcome.error(what)
        if epoch is None and self.is_over(what) and not self._is_empty_next():
            raise self.ended(what)
        if run.length is not None:
            self._check(self._next_epoch if epoch is None else epoch, what)
        return EpochIterator(self, epoch)

    def _is_empty_next(self) -> bool:
        """Whether the data has ended with an epoch of skipped batches that nobody has iterated over."""
        run = self._run
        total = run.queue.last_total
        if not run.length or total is None or self._ended_at == run.moves:
            return False
        return total > self._next_front

    def begin(self, iteration: EpochIterator) -> None:
        """Begin the epoch of an iterator: make its first batch the next one."""
        run = self._run
        asked = clock()
        run.refuse_own_thread("iteration")
        with run.turn:
            run.ensure_started()
            self.iteration += 1
            run.queue.admit(self.iteration)
            if run.length:
                self._begin_counted(iteration)
            else:
                self._begin_numbered(iteration)
            iteration.is_counted = run.length is not None
            # Last: other threads that share the iterator then take batches.
            iteration.number = self.iteration
            self._latest = weakref.ref(iteration)
        run.waits.blocked(clock() - asked)

    def _begin_counted(self, iteration: EpochIterator) -> None:
        source = self._run.source
        epoch = self._next_epoch if iteration.epoch is None else iteration.epoch
        self._check(epoch, "iteration")
        resumed = iteration.epoch is None and self._resumed
        front, end = source.number_of(epoch), source.number_of(epoch + 1)
        iteration.length = end - (self._run.first_ticket if resumed else front)
        queue = self._run.queue
        if not resumed and not (queue.next_ticket >= front >= max(queue.reached, self._whole_from)):
            self._go_to(epoch, front)
        iteration.epoch, iteration.end, iteration.resumed = epoch, end, resumed
        self._set_next(epoch + 1)
        self._resumed = False

    def _begin_numbered(self, iteration: EpochIterator) -> None:
        run, wanted = self._run, iteration.wanted
        if wanted is not None and run.regroups and run.source.seekable:
            self._check(wanted, "epoch")
            if self.touched or wanted:
                run.move(run.source.front(wanted), "iteration")
            self._last_epoch = None
        iteration.begin_after = self._last_epoch

    def _check(self, epoch: int, what: str) -> None:
        """Raise if there is no such epoch."""
        source, queue = self._run.source, self._run.queue
        epochs = source.epochs
        if epochs is not None and epoch >= epochs:
            total = source.number_of(epochs) if self._run.length else epochs
            if epoch == self._next_epoch and queue.next_ticket >= total > 0:
                # All were delivered, whether or not the source has said so already.
                raise self.ended(what)
            raise EndOfData(
                f"Pipeline.{what}: there is no epoch {epoch}: {source.name} has epochs={epochs}, counted from 0. "
                "Use a larger epochs=, or epochs=None for endless data; epoch(n) begins an earlier epoch again"
            )

    def _go_to(self, epoch: int, front: int) -> None:
        """Make the first batch of an epoch, ticket `front`, the next one; drops the batches that were made ahead."""
        run = self._run
        if run.source.seekable:
            run.move(run.source.front(epoch), "iteration")
            self._whole_from = front
        elif run.queue.reached > front:
            raise PipelineStateError(
                f"Pipeline.epoch: {run.source.name} cannot go back to epoch {epoch}; make a new pipeline"
            )
        elif not run.drop(front):
            raise run.outcome.error("iteration")

    # Loaded states

    def restart(self, place: Any, regrouped: Sequence[Place] = ()) -> None:
        """End iterations and continue at a place that the source has found in a state; with `Run.turn` held."""
        run = self._run
        self.iteration += 1
        self._last_epoch = self._latest = None
        self._rejected = 0
        # Until the next epoch is known, who takes a batch waits in `_enter`.
        self._next_epoch = self._next_front = 0
        run.begin_at(place, regrouped)
        self.touched = True
        if run.length:
            epoch, done = run.source.batch_at(run.first_ticket)
            self._resumed = bool(done) or place != run.source.front(epoch)
            self._set_next(epoch)
            self._whole_from = run.source.number_of(epoch + self._resumed)

    def forget(self) -> None:
        """Continue at a state that the source has loaded itself."""
        self._last_epoch, self.touched = None, True

    @property
    def resumed(self) -> int | None:
        """The epoch whose rest the next iteration yields; None if that begins an epoch."""
        return self._next_epoch if self._resumed else None

    # During an iteration

    def length_of(self, iteration: EpochIterator) -> int:
        """Return the number of batches of an iteration."""
        if iteration.length is not None:
            return iteration.length
        if iteration.epoch is not None:
            return self._run.batches_in(iteration.epoch, iteration.epoch)
        length = self._run.batches_in(self._next_epoch, self._next_epoch)
        if not self._resumed or self._run.length is None:
            return length
        return self._run.source.number_of(self._next_epoch + 1) - self._run.first_ticket

    def length(self) -> int:
        """Return the number of batches of the epoch in progress, or of the next one; see `Pipeline.__len__`."""
        run = self._run
        latest = None if self._latest is None else self._latest()
        if (
            latest is not None
            and latest.epoch is not None
            and latest.number == self.iteration
            and not latest.over
        ):
            epoch = latest.epoch
        elif run.length and self._latest is None:
            epoch = run.source.batch_at(run.queue.next_ticket)[0]
        else:
            epoch = self._next_epoch
        epochs = run.source.epochs
        return run.batches_in(epoch if epochs is None else max(0, min(epoch, epochs - 1)))

    def check_current(self, iteration: EpochIterator) -> None:
        """Raise if another iteration has begun."""
        if iteration.number != self.iteration:
            raise superseded() from None

    def stopped(self) -> BaseException:
        """Return the error to raise in an iteration where the queues are closed."""
        return self._run.outcome.error("iteration")

    def continue_empty(self, iteration: EpochIterator) -> bool:
        """Go on with the next epoch where the rest of a resumed epoch was skipped; raises for any other empty one.

        Returns False where another thread took the batches.
        """
        run = self._run
        if iteration.end is not None and run.queue.reached > iteration.end - (iteration.length or 0):
            # Other threads took the batches, with dequeue().
            return False
        if iteration.seen and not self._rejected:
            # Another thread that shares the iterator has just taken the first batch, which it has not noted yet.
            return False
        source, total, epoch = run.source, run.queue.last_total, iteration.epoch
        if not run.length or iteration.end is None or epoch is None:
            raise self.ended("iteration")
        if total is not None and total <= source.number_of(epoch):
            raise self.ended("iteration")
        if not iteration.resumed:
            raise EmptyEpochError(
                f"Pipeline: all {iteration.length} batches of epoch {epoch} were skipped; expected one or more. "
                "errors and stats() list what was skipped; the next iteration begins the next epoch"
            )
        epoch += 1
        if source.epochs is not None and epoch >= source.epochs:
            raise self.ended("iteration")
        iteration.resumed = False
        iteration.length = source.batches_in(epoch)
        iteration.epoch, iteration.end = epoch, iteration.end + iteration.length
        with run.turn:
            self._set_next(max(self._next_epoch, epoch + 1))
        return True

    # Epochs that only the numbers of their batches tell apart

    def take_uncounted(self, iteration: EpochIterator) -> Batch:
        """Return the next batch of an iteration, of a source that does not know its length."""
        run = self._run
        asked = clock()
        if not run.ordered:
            if not iteration.yielded:
                try:
                    self._refuse_numbered(iteration)
                finally:
                    run.waits.blocked(clock() - asked)
            return self.take(reader=iteration.number)
        try:
            batch = self._next_numbered(iteration)
        except BaseException:
            run.waits.blocked(clock() - asked)
            raise
        run.waits.took(batch, asked, clock())
        return batch

    def _next_numbered(self, iteration: EpochIterator) -> Batch:
        queue, source, follower = self._run.queue, self._run.runners[0], self._run.follower
        assert isinstance(source, SourceRunner)
        while True:
            ticket, batch = queue.peek(reader=iteration.number)
            dropped = False
            if batch is not None and source.nameless:
                if not iteration.yielded:
                    self._check_only_epoch(iteration)
            elif batch is not None:
                if not iteration.yielded and self._is_before(iteration, batch.epoch):
                    dropped = True
                elif iteration.epoch is None:
                    iteration.epoch = batch.epoch
                elif batch.epoch != iteration.epoch:
                    raise EndOfData("the epoch is over")
            if not dropped and batch is not None:
                # Before it is taken: another thread may see the end first, and the epoch is not empty.
                iteration.seen = True
            if not queue.take(ticket, iteration.number):
                continue
            if (batch is None or follower is not None) and not self._is_wanted(ticket, batch):
                continue
            self._last_epoch = batch.epoch
            self.touched = True
            if not dropped:
                return batch  # type: ignore[no-any-return]
            self._run.dropped += 1

    def _is_before(self, iteration: EpochIterator, epoch: int) -> bool:
        """Whether batches of this epoch come before the iteration; raises if its epoch cannot come any more."""
        if iteration.wanted is None:
            return epoch == iteration.begin_after
        if epoch > iteration.wanted and self._run.regroups and self._run.source.seekable:
            raise EmptyEpochError(
                f"Pipeline.epoch: no sample of epoch {iteration.wanted} remains after the stages; expected one or "
                "more. stats() lists what was skipped; the next iteration begins the next epoch"
            )
        if epoch > iteration.wanted or iteration.wanted == iteration.begin_after:
            raise PipelineStateError(
                f"Pipeline.epoch: {self._run.source.name} cannot go back to epoch {iteration.wanted}; the next batch "
                f"is of epoch {epoch}"
            )
        return epoch < iteration.wanted

    def _refuse_numbered(self, iteration: EpochIterator) -> None:
        """Raise where unordered batches of several epochs would come as one; takes none."""
        self._run.queue.peek(reader=iteration.number)
        source = self._run.runners[0]
        assert isinstance(source, SourceRunner)
        if not source.nameless:
            raise self._no_epochs("iteration")
        self._check_only_epoch(iteration)
        iteration.yielded = True

    def _check_only_epoch(self, iteration: EpochIterator) -> None:
        """Raise if a source without epoch numbers cannot begin the epoch."""
        if iteration.epoch is not None and (iteration.epoch > 0 or iteration.begin_after is not None):
            raise PipelineStateError(
                f"Pipeline.epoch: {self._run.source.name} cannot go to epoch {iteration.epoch}: it sets no epoch "
                "numbers, so all of its batches are epoch 0, which begins once; make a new pipeline"
            )

    def _no_epochs(self, what: str) -> PipelineStateError:
        return PipelineStateError(
            f"Pipeline.{what}: {self._run.source.name} does not know the number of batches in an epoch, so an "
            "unordered pipeline cannot tell where an epoch ends; use ordered=True, or dequeue() and forever()"
        )
