"""Prometheus metrics, made from the monitor's figures when they are asked for. Labels: scheme and scenario only."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gnb_server.handlers import Handlers


class RunCollector(Collector):
    """Totals of the run as counters, averages as gauges."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def collect(self) -> Iterator[Metric]:
        """One family per figure."""
        labels = ["scheme", "scenario"]
        rows = self._handlers.nmse()["schemes"]
        for key, text in (
            ("reports", "Reports decoded and stored"),
            ("feedback_bits_total", "Feedback bits of these reports"),
            ("wire_bytes_total", "Bytes of these reports on the wire"),
        ):
            counter = CounterMetricFamily(f"csiemu_{key.removesuffix('_total')}", text, labels=labels)
            for row in rows:
                counter.add_metric([row["scheme"], row["scenario"]], row[key])
            yield counter
        for key, text in (
            ("ues", "UEs known"),
            ("ues_attached", "UEs attached"),
            ("nmse_db", "NMSE since the start of the run, mean of ratios [dB]"),
            ("ratio_of_sums_db", "NMSE since the start of the run, ratio of sums [dB]"),
            ("sgcs", "Squared generalised cosine similarity since the start of the run"),
        ):
            gauge = GaugeMetricFamily(f"csiemu_{key}", text, labels=labels)
            for row in rows:
                if row[key] is not None:
                    gauge.add_metric([row["scheme"], row["scenario"]], row[key])
            yield gauge
        latency = GaugeMetricFamily(
            "csiemu_latency_ms", "From a chunk's arrival to its commit [ms]", labels=[*labels, "statistic"]
        )
        for row in rows:
            for statistic, value in row["latency_ms"].items():
                if value is not None:
                    latency.add_metric([row["scheme"], row["scenario"], statistic], value)
        yield latency
