"""The engine: pipelines, their modules, and the threads that run them."""

from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.pipeline import Pipeline

__all__ = ["Failure", "Module", "Outlet", "Pipeline", "Sink", "Source", "Stage", "usable_cores"]
