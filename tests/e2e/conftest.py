import pytest

import server as servers


@pytest.fixture(scope="session")
def server():
    """One disaggregated server for the tests that do not break anything."""
    with servers.Server() as running:
        yield running
        running.wait_idle()
