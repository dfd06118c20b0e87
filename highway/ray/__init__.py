"""Highway on Ray: the workers of a pipeline on a cluster, and pipelines in trainings of Ray Train."""

from highway.ray.training import loader, save_state
from highway.ray.workers import Workers

__all__ = ["Workers", "loader", "save_state"]
