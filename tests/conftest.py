import gc
import signal
import sys
import threading

import pytest
from faults import faults, faulty_library  # noqa: F401 – fixtures
from hypothesis import HealthCheck, settings

from highway._core import simd

# A shell that runs the tests in the background leaves Ctrl-C ignored, for them and for the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, and how long making it, depends on what else the machine does.
settings.register_profile("highway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("highway")


# Which of the files have tests that are not run by every environment of tox: "test_" and one of these. The markers
# are explained in pyproject.toml; files without a marker are run by all but `machines`.
MARKED = {
    "cluster": """
    ray_fleet ray_training ray_workers
    """,
    "kernel": """
    color crew erase_and_mix filters fused_runs gather geometry jpeg jpeg_sequential many_views mix noise orientation
    packing philox png ranges resample simd tables values warp warps webp
    """,
    "machines": """
    acquaintances cli_network examples lifetime link link_simulation machine_stats metrics network_foreign
    network_processes network_proxy remote_processes security worker_pool_processes
    """,
    "frameworks": """
    jax keras tensorflow torch training_loops
    """,
    "once": """
    addresses annotations annotations_follow architecture array_files arrays_benchmark benchmarks boxes bucket_index
    buckets cache cache_commands cached_samples cluster_files combined compose concurrency cores dataset_reader demo
    detection docs docstrings epoch_lengths fetching fit floor_plan framework_guides groups guard_pages gzipped_tars
    kept_indexes list_reader manifests map_filter missing_frameworks missing_parts mixture objects one_pass outages
    packaging pairs parcels paths placement plan policies pool_scaling proportions ray_arguments ray_missing readme
    remote_readers remote_tables row_groups same_samples_everywhere sample_memory schedules seeds selection
    shape_schedules sheet stats system_packages table_reader tables_benchmark tar_objects tar_sink token_batches
    transform_sheet tuning urls views voc weights which_samples wrappers
    """,
    "python": """
    arguments cli construction dataset_processes driver ends folders format_limits network order saver shutdown signal
    signatures state sweep_of_formats
    """,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    marks = {f"test_{name}": mark for mark, names in MARKED.items() for name in names.split()}
    for item in items:
        if item.path.stem in marks:
            item.add_marker(marks[item.path.stem])


@pytest.fixture
def no_hedges(monkeypatch):
    """Requests are made once, however slow the machine is: tests may count them."""
    from highway.storage import requests

    monkeypatch.setattr(requests, "_FIRST_HEDGES", 0)
    monkeypatch.setattr(requests, "_HEDGES", 0.0)


def pytest_collection_finish():
    """What is there now stays to the end: looking through all of it for garbage takes a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Every test ends the threads that it starts: those of pipelines are named after their module."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("highway ")]
    assert not left, f"threads are left: {left}"


@pytest.fixture(params=sorted(simd.VARIANTS))
def simd_variant(request):
    """Run with every variant of the kernels that this CPU has."""
    before = simd.in_use()
    used = simd.use(request.param)
    if used == request.param:
        yield used
    simd.use(before)
    if used != request.param:
        pytest.skip(f"this CPU has no {request.param}")


@pytest.fixture
def restless():
    """Threads change places as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
