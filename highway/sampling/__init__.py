"""The order of the samples, and their random numbers."""

from highway.sampling.lengths import TokenBatches, tokens
from highway.sampling.schedules import Schedule, schedule

__all__ = ["Schedule", "TokenBatches", "schedule", "tokens"]
