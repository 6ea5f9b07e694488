"""Ray's provider for AWS, which tries kinds of instance in order until AWS has room for one.

Ray 2.60 asks again for the node type of the highest priority, however often AWS has none left: a
launch that is refused lowers no type's rank. So one node type stands for all, and
``launch_in_order`` in the provider's block of cluster.yaml lists what may differ in its
``node_config``. All of them must have the resources of the node type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from study.engine.ray_internals import NODE_KIND_TAG, WORKER_KIND, aws_provider, launch_failure

logger = logging.getLogger(__name__)

NO_ROOM = (
    "InsufficientInstanceCapacity",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "Unsupported",  # no zone here has the type
    "VcpuLimitExceeded",
)
"""The codes of AWS for an instance that another kind may replace; others are a mistake."""


class InOrderProvider(aws_provider()):  # type: ignore[misc]
    """Launches a worker as the first of ``launch_in_order`` for which there is room."""

    def create_node(
        self, node_config: Mapping[str, Any], tags: Mapping[str, str], count: int
    ) -> Any:
        """Launch `count` instances, or as many as there is room for; returns them by their ids.

        Raises Ray's launch failure where no kind has room, or one is refused for another reason.
        """
        kinds = self.provider_config.get("launch_in_order") or [{}]
        if tags.get(NODE_KIND_TAG) != WORKER_KIND:
            kinds = [{}]
        for kind in kinds[:-1]:
            try:
                return super().create_node({**node_config, **kind}, tags, count)
            except launch_failure() as error:
                if error.category not in NO_ROOM:
                    raise
                logger.warning("no room for %s: %s", kind, error.category)
        return super().create_node({**node_config, **kinds[-1]}, tags, count)
