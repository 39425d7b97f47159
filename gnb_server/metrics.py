"""Prometheus metrics, made from the monitor's figures when they are asked for. Labels say which fleets are averaged;
none has values that a UE can choose freely.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gnb_server.handlers import Handlers
from gnb_server.monitor import LONGEST_WINDOW_S

LABELS = ["scheme", "version", "encoder_id", "preset"]


class RunCollector(Collector):
    """Totals of the run as counters, averages as gauges."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def collect(self) -> Iterator[Metric]:
        """One family per figure."""
        writable = GaugeMetricFamily("csiemu_store_writable", "Whether results can be stored: 1, or 0 while UEs wait")
        writable.add_metric([], self._handlers.store_writable)
        yield writable
        labels = ["scheme", "version", "indicator"]
        raised = CounterMetricFamily("csiemu_alarms", "Alarms that the monitoring has raised", labels=labels)
        on = GaugeMetricFamily("csiemu_alarms_on", "Alarms of the monitoring that are on", labels=labels)
        for (scheme, version, indicator), (count, now) in self._handlers.alarm_counts().items():
            raised.add_metric([scheme, str(version), indicator], count)
            on.add_metric([scheme, str(version), indicator], now)
        yield from (raised, on)
        text = "Reports that were refused, since they ended the process that decoded them each time"
        undecodable = CounterMetricFamily("csiemu_undecodable", text, labels=labels[:2])
        for (scheme, version), count in self._handlers.undecodable().items():
            undecodable.add_metric([scheme, str(version)], count)
        yield undecodable
        rows = self._handlers.series()
        values = [[str(row[label]) for label in LABELS] for row in rows]
        for key, text in (
            ("reports", "Reports decoded and stored"),
            ("dropped", "Reports that came too late and were not decoded"),
            ("air_corrupted", "Reports that were decoded with bits that the simulated air had flipped"),
            ("air_detected", "Reports whose damage by the simulated air was seen, and which were not decoded"),
            ("air_lost", "Reports that were lost on the simulated air"),
            ("feedback_bits_total", "Feedback bits of these reports"),
            ("wire_bytes_total", "Bytes of these reports on the wire"),
        ):
            counter = CounterMetricFamily(f"csiemu_{key.removesuffix('_total')}", text, labels=LABELS)
            for row, which in zip(rows, values, strict=True):
                counter.add_metric(which, row[key])
            yield counter
        for key, shown, text in (
            ("nmse_sum", "nmse_db", "Sum of the NMSE of these reports: its rate over theirs is the NMSE of a while"),
            ("sgcs_sum", "sgcs", "Sum of their squared generalised cosine similarity, likewise"),
        ):
            counter = CounterMetricFamily(f"csiemu_{key}", text, labels=LABELS)
            for row, which in zip(rows, values, strict=True):
                if row[shown] is not None:
                    counter.add_metric(which, row[key])
            yield counter
        for key, text in (
            ("ues", "UEs known"),
            ("ues_attached", "UEs attached"),
            ("nmse_db", "NMSE since the start of the run, mean of ratios [dB]"),
            ("ratio_of_sums_db", "NMSE since the start of the run, ratio of sums [dB]"),
            ("sgcs", "Squared generalised cosine similarity since the start of the run"),
            ("aged_nmse_db", "NMSE against the channels of the slots in which estimates were ready [dB]"),
            ("aged_sgcs", "The same of the squared generalised cosine similarity"),
            ("offered_reports_per_s", "Reports per second that attached UEs are to send, if they say so"),
            ("reports_per_s", f"Reports per second that were served, over the last {LONGEST_WINDOW_S:g} s"),
            ("rate_held", "Whether all of these fleets are served what they are to send: 1 or 0"),
        ):
            gauge = GaugeMetricFamily(f"csiemu_{key.replace('per_s', 'per_second')}", text, labels=LABELS)
            for row, which in zip(rows, values, strict=True):
                if row[key] is not None:
                    gauge.add_metric(which, row[key])
            yield gauge
        text = "Feedback bits of a report since the start of the run"
        bits = GaugeMetricFamily("csiemu_report_bits", text, labels=[*LABELS, "statistic"])
        for row, which in zip(rows, values, strict=True):
            for statistic in ("p5", "p95", "most"):
                if row["reports"]:
                    bits.add_metric([*which, statistic], row[f"feedback_bits_{statistic}"])
        yield bits
        for key, text in (
            ("latency_ms", "From a chunk's arrival to when it was decoded"),
            ("queue_ms", "From a chunk's arrival to when its turn came"),
            ("age_ms", "From when a channel was measured to when its estimate was ready"),
        ):
            over = f"{text} [ms], over the last {LONGEST_WINDOW_S:g} s"
            delay = GaugeMetricFamily(f"csiemu_{key}", over, labels=[*LABELS, "statistic"])
            for row, which in zip(rows, values, strict=True):
                for statistic, value in row[key].items():
                    if value is not None:
                        delay.add_metric([*which, statistic], value)
            yield delay
