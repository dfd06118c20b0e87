"""The order of the samples, and their random numbers."""

from highway.sampling.schedules import Schedule, schedule

__all__ = ["Schedule", "schedule"]
