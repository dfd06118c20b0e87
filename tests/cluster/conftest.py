"""One cluster for all tests of this folder: it takes longer to start than most of them."""

import pytest
from ray_clusters import cluster


@pytest.fixture(scope="session")
def nodes(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("r")) as found:
        yield found
