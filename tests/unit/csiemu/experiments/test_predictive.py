from __future__ import annotations

import sys

import pytest

from csiemu.experiments import predictive


def test_both_forms_at_each_number_of_bits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("csiemu.training.schemes.SchemeTraining.measured_frames", 1024)
    monkeypatch.setattr(predictive, "WRONG", 0.05)
    monkeypatch.setattr(sys, "argv", ["predictive", "--ues", "200", "--bits", "8", "--memories", "0.5"])
    predictive.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    bits, *cells = lines[2]
    assert bits == "8"
    plain, _, predicted, _ = (float(cell.split()[0]) for cell in cells)
    assert predicted < plain - 1
    memory, *cells = lines[6]
    assert memory == "0.5"
    right, _, wrong, _ = (float(cell.split()[0]) for cell in cells)
    assert right < wrong < 0
