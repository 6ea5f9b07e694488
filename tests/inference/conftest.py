"""One exported network for all tests of a session."""

from __future__ import annotations

import pytest
from exported_network import Exported, export_network


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_network(tmp_path_factory.mktemp("exports"))
