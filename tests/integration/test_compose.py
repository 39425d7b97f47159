"""What docker-compose.yml hands to the containers: variables that are settings, and a health check that answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gnb_server.settings import Settings as GnbSettings
from ue_client.settings import Settings as UeSettings

SERVICES = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("service", SERVICES)
def test_variables_are_settings(service: str) -> None:
    prefix, settings = ("CSIEMU_GNB_", GnbSettings) if service == "gnb" else ("CSIEMU_UE_", UeSettings)
    for variable, value in SERVICES[service]["environment"].items():
        assert variable.removeprefix(prefix).lower() in settings.model_fields
        assert "$" not in value or value == f"${{{variable}:-}}"
    assert any(volume.endswith(":/tls:ro") for volume in SERVICES[service]["volumes"])


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
