"""The engine: pipelines, their modules, and the threads that run them."""

from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.pipeline import Pipeline
from highway.engine.spec import FieldSpec

__all__ = ["Failure", "FieldSpec", "Module", "Outlet", "Pipeline", "Sink", "Source", "Stage", "usable_cores"]
