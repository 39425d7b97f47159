"""What docker-compose.yml hands to the containers: variables that are settings, volumes, a health check that answers;
and a dashboard of metrics that there are.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gnb_server.settings import Settings as GnbSettings
from ue_client.settings import Settings as UeSettings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "csi-feedback-emulator" in service["image"]}

GIVEN = {"scheme", "ue_base", "gnb_file", "token_file", "summary", "record", "record_every", "checkpoints"}
"""Settings of UEs without a variable: the service's own, or files and ids that services would have in common."""

FIXED = {"grpc_port", "rest_port", "token_file", "ready_file", "checkpoints"}
"""Settings of the gNB without one: ports, files and folders of the container."""


@pytest.mark.parametrize("service", OURS)
def test_every_setting_has_its_variable(service: str) -> None:
    prefix, fields, without = "CSIEMU_UE_", UeSettings.model_fields, GIVEN
    if service == "gnb":
        prefix, fields, without = "CSIEMU_GNB_", GnbSettings.model_fields, FIXED
    environment = OURS[service]["environment"]
    assert {variable.removeprefix(prefix).lower() for variable in environment} == fields.keys() - without
    for variable, value in environment.items():
        assert "$" not in value or value.startswith(f"${{{variable}:-")


@pytest.mark.parametrize("service", OURS)
def test_volumes(service: str) -> None:
    """All see the same checkpoints, and the gNB alone, which takes uploads, may write them."""
    mounted = dict(volume.rsplit(":/", 1) for volume in OURS[service]["volumes"])
    assert mounted["checkpoints"] == ("checkpoints" if service == "gnb" else "checkpoints:ro")
    assert mounted["${CSIEMU_TLS:-tls}"] == "tls:ro"
    assert mounted.keys() - {"${CSIEMU_TLS:-tls}"} <= COMPOSE["volumes"].keys()


def test_only_what_this_repository_builds_runs_without_a_profile() -> None:
    assert all("profiles" in service for name, service in SERVICES.items() if name not in OURS)


def test_the_dashboard_shows_what_there_is(gnb: Any) -> None:
    """Every metric that it asks for is one of /metrics, with the labels that it groups by."""
    gnb.run_ues(scheme="rnn", ues=2, slots=8)
    families = text_string_to_metric_families(gnb.call("/metrics")[1])
    labels = {sample.name: {*sample.labels} for family in families for sample in family.samples}
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    [target] = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["gnb:8000"]
    panels = json.loads((ROOT / "deploy/grafana/dashboards/csiemu.json").read_text())["panels"]
    asked = [target for panel in panels for target in panel["targets"]]
    assert {target["datasource"]["uid"] for target in asked} == {source["datasources"][0]["uid"]}
    for target in asked:
        metrics = re.findall(r"\b(?:csiemu|process)_\w+", target["expr"])
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", target["expr"]))))
        assert metrics
        for metric in metrics:
            assert grouped <= labels[metric], metric
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped


@pytest.mark.parametrize("secure", [False, True])
def test_the_health_check_passes(start_gnb: Callable[..., Any], tmp_path: Path, secure: bool) -> None:
    files = {}
    if secure:
        issued = trustme.CA().issue_cert("gnb")  # as the UEs call it
        files = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
        issued.cert_chain_pems[0].write_to_path(files["tls_certificate"])
        issued.private_key_pem.write_to_path(files["tls_key"])
    gnb = start_gnb(**files)
    _, _, option, script = SERVICES["gnb"]["healthcheck"]["test"]
    line = [sys.executable, option, script.replace("127.0.0.1:8000", gnb.rest)]
    environment = {**os.environ, "CSIEMU_GNB_TLS_CERTIFICATE": str(files.get("tls_certificate", ""))}
    for status in (0, 1):
        assert subprocess.run(line, env=environment, capture_output=True, timeout=60, check=False).returncode == status
        gnb.stop()
