"""Time that only the test moves: what a consumer measures is exact, and takes no time."""

import threading

from concurrency import LIMIT

from highway.engine import Stage
from highway.engine.inspection import inspected


class Clock:
    """Seconds, for consumers and simulated trainers, that pass only by `advance`."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds

    def run_pipelines(self, monkeypatch):
        """Let pipelines measure by this clock."""
        for part in ("epochs", "workers"):
            monkeypatch.setattr(f"highway.engine.{part}.clock", self)
        return self


class Noticed:
    """The queue of a pipeline that calls a function whenever a consumer begins to wait, which it measures."""

    def __init__(self, queue, clock, notice):
        self.queue, self.clock, self.notice = queue, clock, notice
        self.waited = 0.0

    def get(self, *arguments, **keywords):
        began = self.clock()
        self.notice()
        try:
            return self.queue.get(*arguments, **keywords)
        finally:
            self.waited += self.clock() - began

    def measures(self):
        return {**self.queue.measures(), "waited_items": self.waited}

    def __getattr__(self, name):
        return getattr(self.queue, name)


def notice_waits(pipeline, clock, notice):
    """Call `notice` whenever a consumer begins to wait for a batch of the pipeline, which is started."""
    pipeline.start()
    run = inspected(pipeline)
    run.queue = Noticed(run.queue, clock, notice)


class Slow(Stage):
    """Takes so many seconds of a clock for each batch, and begins when a consumer waits for it."""

    def __init__(self, clock, *seconds):
        super().__init__(workers=1)
        self.clock, self.seconds = clock, seconds
        self.begun = 0
        self.wanted = threading.Semaphore(0)

    def follow_consumer(self, pipeline):
        """Begin a batch whenever a consumer waits for one; called before the first."""
        notice_waits(pipeline, self.clock, self.wanted.release)

    def process(self, batch):
        assert self.wanted.acquire(timeout=LIMIT)
        self.clock.advance(self.seconds[self.begun % len(self.seconds)])
        self.begun += 1
        return batch

    def interrupt(self):
        self.wanted.release()
