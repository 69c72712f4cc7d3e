"""What was measured, for tests."""

from __future__ import annotations

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint


class Measures:
    """A meter, and what has come to its counters and gauges."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meter: Meter = MeterProvider([self._reader], shutdown_on_exit=False).get_meter("test")

    def seen(self) -> dict[tuple[object, ...], float]:
        """Give each value by the name of its instrument and the values of its labels, in the order of their names."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            (metric.name, *(value for _, value in sorted((point.attributes or {}).items()))): (
                point.value if isinstance(point, NumberDataPoint) else point.count
            )
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
