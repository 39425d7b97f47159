"""REST over a real socket: live results, Open Inference Protocol, errors."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import math
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from shared.checkpoints import CheckpointStore
from tests.integration.live_fleet import LiveFleet, until


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/nmse?scheme=nonsense", None, 404, "'nonsense' is unknown"),
        ("/v1/nmse?ue=77", None, 404, "ue: 77 is unknown"),
        ("/v1/nmse?ue=-1", None, 400, "ue"),
        ("/v1/nmse?window=0", None, 400, "window"),
        ("/v1/nmse?window=nan", None, 400, "window"),
        ("/v1/nmse?cell=nowhere", None, 404, "cell: 'nowhere' is not in the store"),
        ("/v1/nmse?cell=all&window=5", None, 400, "window: 5.0, and cell"),
        ("/v1/history?cell=nowhere", None, 404, "cell: 'nowhere' is not in the store"),
        ("/v1/ues/77", None, 404, "ue: 77 is unknown"),
        ("/v1/ues/x", None, 400, "ue"),
        ("/v1/ues/77/reports", None, 404, "ue: 77 is unknown"),
        ("/v1/ues?status=asleep", None, 400, "status"),
        ("/v1/fleets?limit=0", None, 400, "limit"),
        ("/v1/history?window=0", None, 400, "window"),
        ("/v1/history?since=-1", None, 400, "since"),
        ("/v1/nothing", None, 404, "Not Found"),
        ("/v2/models/nonsense", None, 404, "unknown"),
        ("/v2/models/hyperrnn/versions/9", None, 404, "no version 9"),
        ("/v2/models/hyperrnn/versions/9/ready", None, 404, "no version 9"),
        ("/v2/repository/models/nonsense/load", {}, 404, "unknown"),
        ("/v2/repository/models/..%2F..%2Fetc/load", {}, 404, ""),
        ("/v2/repository/models/..hyperrnn/load", {}, 400, "name: '..hyperrnn'"),
        ("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 9}}, 404, "no version 9"),
        ("/v2/repository/models/hyperrnn/load", {"parameters": {"path": "/tmp/x"}}, 400, "path"),
        ("/v2/repository/models/hyperrnn/load", {"parameters": {"version": "../1"}}, 400, "version"),
        ("/v2/repository/models/dldnn/unload", {}, 404, "not loaded"),
    ],
)
def test_errors(gnb: Any, path: str, body: Any, status: int, says: str) -> None:
    found, answer = gnb.call(path, body)
    assert found == status
    assert set(answer) == {"error"}
    assert says in answer["error"]
    assert gnb.call("/v2/health/live") == (200, {"live": True})


def test_results(gnb: Any) -> None:
    gnb.run_ues(scheme="rnn", ues=3, slots=16)
    gnb.run_ues(scheme="dldnn", ues=2, slots=12)
    answer = gnb.call("/v1/nmse")[1]
    assert {row["scheme"]: row["reports"] for row in answer["schemes"]} == {"rnn": 48, "dldnn": 24}
    assert answer["overall"]["reports"] == 72
    assert answer["overall"]["feedback_bits_total"] == 72 * 20
    windowed = gnb.call("/v1/nmse?window=600&scheme=rnn")[1]["schemes"]
    assert [row["reports"] for row in windowed] == [48]
    assert windowed[0]["nmse_db"] == pytest.approx(answer["schemes"][0]["nmse_db"])
    ues = gnb.call("/v1/ues")[1]
    assert [row["ue"] for row in ues["ues"]] == [0, 1, 2, 3, 4]
    assert {row["status"] for row in ues["ues"]} == {"finished"}
    assert gnb.call("/v1/ues?scheme=dldnn&limit=1")[1]["total"] == 2
    one = gnb.call("/v1/ues/3")[1]
    assert (one["scheme"], one["reports"], one["next_sequence"]) == ("dldnn", 12, 12)
    reports = gnb.call("/v1/ues/3/reports?limit=5")[1]["reports"]
    assert [row["sequence"] for row in reports] == [7, 8, 9, 10, 11]
    everything = gnb.call("/v1/ues/3/reports")[1]["reports"]
    mean = sum(row["nmse"] for row in everything) / 12
    assert 10 ** (one["nmse_db"] / 10) == pytest.approx(mean)
    assert ues["ues"][3]["nmse_db"] == pytest.approx(one["nmse_db"])
    assert ues["ues"][3]["sgcs"] == pytest.approx(one["sgcs"])
    assert gnb.call("/v1/fleets")[1] == {"fleets": [], "total": 0}
    assert gnb.call("/v1/nmse?ue=3")[1]["schemes"][0]["nmse_db"] == one["nmse_db"]
    assert gnb.call("/v1/nmse?ue=3&scheme=rnn")[0] == 404
    recent = gnb.call("/v1/nmse?ue=3&window=600")[1]["schemes"][0]
    assert (recent["reports"], recent["latency_ms"]["p50"] > 0) == (12, True)
    for figure in ("nmse_db", "sgcs", "frames"):
        assert recent[figure] == pytest.approx(one[figure])


def test_reports_say_what_their_nmse_is_of(gnb: Any) -> None:
    fleet = gnb.run_ues(scheme="crnet", ues=2, slots=4, seed=5)
    answer = gnb.call("/v1/ues/1/reports")[1]
    about = {
        "scheme": "crnet",
        "encoder_id": CheckpointStore(gnb.checkpoints).load("crnet").encoder_id,
        "scenario": str(fleet.conditions.scenario),
        "seed": 5,
        "delay_slots": 0,
        "domain": "angular-delay, truncated to the kept delay rows",
    }
    for named in (answer, gnb.call("/v1/ues")[1]["ues"][1], gnb.call("/v1/nmse")[1]["schemes"][0]):
        assert {name: named[name] for name in about} == about
    total = gnb.call("/v1/ues/1")[1]
    for figure in ("nmse", "nmse_sf"):
        mean = sum(10 ** (row[f"{figure}_db"] / 10) for row in answer["reports"]) / 4
        assert 10 ** (total[f"{figure}_db"] / 10) == pytest.approx(mean)
    assert sum(row["rho"] for row in answer["reports"]) / 4 == pytest.approx(total["rho"])


def test_how_a_run_went_outlives_the_gnb(start_gnb: Callable[..., Any]) -> None:
    gnb = start_gnb()
    live = LiveFleet(gnb, scheme="rnn", ues=3, rate=20.0)
    until(lambda: len(gnb.call("/v1/history?window=1")[1]["times"]) > 1)
    live.stop()
    (row,) = gnb.call("/v1/nmse?by=version")[1]["schemes"]
    gnb.stop()
    found = start_gnb().call("/v1/history?window=600")[1]
    assert found["window_s"] == 600
    (series,) = found["series"]
    assert (series["scheme"], series["version"], series["preset"]) == ("rnn", 1, "multipath-p2")
    assert series["encoder_id"] == row["encoder_id"]
    assert 0 < series["reports"][-1] <= row["reports"]
    assert series["nmse_db"][-1] == pytest.approx(row["nmse_db"], abs=2)


def test_fleets_are_listed_while_they_are_held(gnb: Any) -> None:
    with gnb.stub() as stub:
        gnb.attach(stub, "rnn", ue_count=3)
        gnb.attach(stub, "dldnn", ue_count=2, seed=5)
        found = gnb.call("/v1/fleets")[1]
        assert found["total"] == 2
        shown = [(row["scheme"], row["first_ue"], row["ue_count"], row["seed"]) for row in found["fleets"]]
        assert shown == [("rnn", 0, 3, 3), ("dldnn", 3, 2, 5)]
        assert gnb.call("/v1/fleets?offset=1&limit=1")[1]["fleets"] == found["fleets"][1:]


def test_ring_keeps_the_newest(start_gnb: Callable[..., Any]) -> None:
    gnb = start_gnb(reports_kept=10)
    gnb.run_ues(scheme="rnn", ues=1, slots=24)
    sequences = [row["sequence"] for row in gnb.call("/v1/ues/0/reports")[1]["reports"]]
    assert sequences == list(range(14, 24))
    assert gnb.call("/v1/ues/0")[1]["reports"] == 24


def test_stream(gnb: Any) -> None:
    gnb.run_ues(scheme="rnn", ues=2, slots=8)
    with urllib.request.urlopen(f"http://{gnb.rest}/v1/stream?interval=0.1", timeout=10) as stream:
        lines = [stream.readline().decode().strip() for _ in range(6)]
    assert "event: nmse" in lines
    data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["schemes"][0]["reports"] == 16


def read_stream(gnb: Any, stack: contextlib.ExitStack) -> tuple[int, Any]:
    """Status of a stream that stays open, and the stream."""
    connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection(gnb.rest, timeout=30)))
    connection.request("GET", "/v1/stream?interval=0.1")
    answer = connection.getresponse()
    return answer.status, answer


def test_streams_are_limited(start_gnb: Callable[..., Any]) -> None:
    """One too many is told so; a client that leaves makes room, one that was refused for another reason takes none."""
    gnb = start_gnb(stream_clients=2)
    with contextlib.ExitStack() as stack:
        first = contextlib.ExitStack()
        assert read_stream(gnb, first)[0] == read_stream(gnb, stack)[0] == 200
        status, answer = read_stream(gnb, stack)
        assert (status, "stream_clients" in json.load(answer)["error"]) == (503, True)
        first.close()
        while read_stream(gnb, stack)[0] == 503:  # until the gNB sees that it left
            pass
        assert gnb.call("/v1/stream?interval=9")[0] == 503
        assert gnb.call("/v1/nmse")[0] == 200  # streams alone
    for _ in range(3):
        assert gnb.call("/v1/stream?interval=0")[0] == 400
    with contextlib.ExitStack() as stack:
        while read_stream(gnb, stack)[0] == 503:
            pass


def test_streams_end_quietly(start_gnb: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """With the gNB, in the middle of a long pause too, and with clients that leave at any moment."""
    gnb = start_gnb()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            with contextlib.ExitStack() as leaving:
                read_stream(gnb, leaving)[1].readline()
        _, staying = read_stream(gnb, stack)
        staying.readline()
        pausing = stack.enter_context(urllib.request.urlopen(f"http://{gnb.rest}/v1/stream?interval=60", timeout=30))
        pausing.readline()
        gnb.stop()
        for stream in (staying, pausing):
            stream.read()  # to its end, not to an error
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def send_body(gnb: Any, method: str, path: str, size: int, *, chunked: bool) -> tuple[int, bytes, int]:
    """Status, answer, and how much of a body was taken before it."""
    with contextlib.closing(http.client.HTTPConnection(gnb.rest, timeout=30)) as connection:
        connection.putrequest(method, path)
        connection.putheader("content-type", "application/json")
        connection.putheader(*(("transfer-encoding", "chunked") if chunked else ("content-length", str(size))))
        connection.endheaders()
        sent, block = 0, b" " * 65536
        with contextlib.suppress(OSError):
            while sent < size:
                connection.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
            connection.send(b"0\r\n\r\n" if chunked else b"")
        answer = connection.getresponse()
        return answer.status, answer.read(), sent


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "path", ["/v2/repository/models/rnn/load", "/v2/repository/models/rnn/unload", "/v2/repository/index"]
)
def test_bodies_are_limited(gnb: Any, path: str, chunked: bool) -> None:
    status, answer, _ = send_body(gnb, "POST", path, 20 << 20, chunked=chunked)
    assert (status, json.loads(answer)) == (413, {"error": "body: more than 1048576 bytes"})
    assert gnb.call("/v2/health/live")[0] == 200


def test_errors_do_not_echo(gnb: Any) -> None:
    """Neither long values, names, nesting, paths nor parameters."""
    load, long = "/v2/repository/models/rnn/load", "x" * 60_000
    nested = "[" * 100_000 + "]" * 100_000
    for path, body in (
        (load, {"parameters": {"version": long}}),
        (load, {"parameters": {long: 1}}),
        (load, {"parameters": [list(range(9999))]}),
        (load, long),
        (f"/v1/nmse?scheme={long}", None),
        (f"/v1/nmse?{long}=1", None),
        (f"/v1/{long}", None),
        (f"/v2/models/{long}", None),
    ):
        status, answer = gnb.call(path, body)
        assert (status in (400, 404), len(answer["error"]) < 500) == (True, True)
    request = urllib.request.Request(f"http://{gnb.rest}{load}", nested.encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert (caught.value.code, len(caught.value.read()) < 500) == (400, True)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nmse?sceme=rnn",
        "/v1/ues?limits=1",
        "/v1/ues/0?limit=1",
        "/v1/ues/0/reports?offset=1",
        "/v1/stream?intervall=1",
        "/v2?verbose=1",
        "/v2/health/live?x=",
        "/v2/models/rnn?version=1",
        "/metrics?name=csiemu_ues",
    ],
)
def test_unknown_parameters_are_named(gnb: Any, path: str) -> None:
    status, answer = gnb.call(path)
    name = path.split("?")[1].split("=")[0]
    assert (status, answer["error"].startswith(f"{name}: no such parameter; known are ")) == (400, True)
    assert gnb.call("/v2/repository/index?ready=true", {})[0] == 400


def test_metrics(gnb: Any) -> None:
    """Series are of what the gNB has, not of what UEs choose: two seeds, another SNR and a delay are one."""
    for number, chosen in enumerate(
        ({}, {"seed": 1}, {"scenario": "multipath-p2:antennas=16,snr_db=3"}, {"delay_slots": 1})
    ):
        gnb.run_ues(scheme="rnn", ues=2, slots=8 * (number + 1), **chosen)
    gnb.run_ues(scheme="hyperrnn", ues=2, slots=8)
    text = gnb.call("/metrics")[1]
    families = {family.name: family for family in text_string_to_metric_families(text)}
    reports = {sample.labels["scheme"]: sample for sample in families["csiemu_reports"].samples}
    assert {scheme: sample.value for scheme, sample in reports.items()} == {"rnn": 160, "hyperrnn": 16}
    assert set(reports["rnn"].labels) == {"scheme", "version", "encoder_id", "preset"}
    assert reports["rnn"].labels["preset"] == "multipath-p2"
    for family in families.values():
        labels = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(set(labels)) == len(labels)  # no series twice
    rows = [row for row in gnb.call("/v1/nmse")[1]["schemes"] if row["scheme"] == "rnn"]
    assert len(rows) == 4
    mean = sum(row["reports"] * 10 ** (row["nmse_db"] / 10) for row in rows) / 160
    [found] = [s.value for s in families["csiemu_nmse_db"].samples if s.labels["scheme"] == "rnn"]
    assert found == pytest.approx(10 * math.log10(mean))
    [summed] = [s.value for s in families["csiemu_nmse_sum"].samples if s.labels["scheme"] == "rnn"]
    assert summed / 160 == pytest.approx(mean)
    assert families["process_resident_memory_bytes"].samples[0].value > 1e7


def test_docs_need_nothing_from_elsewhere(gnb: Any) -> None:
    """What /docs loads, it loads from the gNB, and what these load; the API's own description stands in them."""
    status, page = gnb.call("/docs")
    assert status == 200
    assert not re.search("https?:|//", re.sub("<!--.*?-->|// .*", "", page))
    loaded = re.findall("(?:src|href|url)[=:] ?[\"'](.*?)[\"']", page)
    assert len(loaded) == 4  # script, style, icon, openapi.json
    for path in loaded:
        with urllib.request.urlopen(f"http://{gnb.rest}{path}", timeout=30) as answer:
            text = answer.read().decode(errors="ignore")
        assert len(text) > 500
        assert not path.endswith(".css") or not re.search("(@import|url\\()[\"']?(https?:)?//", text)
    assert "/v1/nmse" in gnb.call("/openapi.json")[1]["paths"]
    assert gnb.call("/redoc")[0] == 404  # a second one, once from elsewhere


def test_models(gnb: Any) -> None:
    assert gnb.call("/v2/health/ready") == (200, {"ready": True})
    assert gnb.call("/v2/models/hyperrnn/ready")[0] == 503
    assert gnb.call("/v2/repository/models/hyperrnn/load", {}) == (
        200,
        {"name": "hyperrnn", "version": "1", "state": "READY"},
    )
    assert gnb.call("/v2/models/hyperrnn/ready") == (200, {"ready": True})
    assert gnb.call("/v2/models/hyperrnn/versions/2/ready")[0] == 503
    model = gnb.call("/v2/models/hyperrnn")[1]
    assert model["versions"] == ["1", "2", "3"]
    assert model["parameters"]["card"]["feedback_bits"] == 20
    index = gnb.call("/v2/repository/index", {})[1]
    assert {(row["name"], row["version"]) for row in index if row["state"] == "READY"} == {("hyperrnn", "1")}
    assert gnb.call("/v2/repository/index", {"ready": True})[1] == [row for row in index if row["state"] == "READY"]
    gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 2}})
    unload = "/v2/repository/models/hyperrnn/unload"
    assert gnb.call(unload, {"parameters": {"version": 2}})[0] == 409  # in service
    assert gnb.call(unload, {"parameters": {"version": 1}})[0] == 200
    assert gnb.call("/v2/models/hyperrnn/versions/1/ready")[0] == 503
    assert gnb.call(unload, {})[0] == 200
    assert gnb.call("/v2/models/hyperrnn/ready")[0] == 503


def test_load_while_ues_are_attached(gnb: Any) -> None:
    with gnb.stub() as stub:
        lease = gnb.attach(stub)
        stream = stub.Feedback(iter([]), metadata=(("fleet-token", lease.token),))
        list(stream)  # opened and closed: gone, not attached
        assert gnb.call("/v1/ues?status=gone")[1]["total"] == 2
        held = stub.Feedback(_never(), metadata=(("fleet-token", lease.token),))
        while gnb.call("/v1/ues?status=attached")[1]["total"] == 0:
            pass
        for version in (3, 2):  # another encoder's beside it, and another decoder for the same encoder
            answer = gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": version}})
            assert answer == (200, {"name": "hyperrnn", "version": str(version), "state": "READY"})
        serving = [
            row["version"] for row in gnb.call("/v2/repository/index", {})[1] if row["reason"] == "serves new frames"
        ]
        assert serving == ["2", "3"]
        assert gnb.call("/v2/repository/models/hyperrnn/unload", {})[0] == 409
        held.cancel()


def _never() -> Any:
    import threading

    threading.Event().wait(30)
    yield from ()


@pytest.mark.parametrize("damage", ["flip", "truncate", "foreign", "card", "probe"])
def test_damaged_checkpoint(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path, damage: str
) -> None:
    """A corrupt or foreign checkpoint is refused; the version in service goes on."""
    root = tmp_path / "damaged"
    shutil.copytree(small_store.root, root)
    gnb = start_gnb(checkpoints=root)
    gnb.run_ues(scheme="hyperrnn", ues=1, slots=8, checkpoints=small_store.root)
    folder = root / "hyperrnn" / "2"
    weights, card = folder / "decoder.safetensors", json.loads((folder / "card.json").read_text())
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "foreign":
        weights.write_bytes((root / "dldnn" / "1" / "decoder.safetensors").read_bytes())
    elif damage == "card":
        (folder / "card.json").write_text("{")
    else:
        card["probe"]["largest"] *= 1.1
        (folder / "card.json").write_text(json.dumps(card))
    status, answer = gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 2}})
    assert status == 422
    assert "hyperrnn/2" in answer["error"]
    assert gnb.run_ues(scheme="hyperrnn", ues=1, slots=8, checkpoints=small_store.root).counts.acked == 8


def test_grpc_health_and_reflection(gnb: Any) -> None:
    with grpc.insecure_channel(gnb.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "csi_feedback.v1.CsiFeedback"):
            status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing])))
        names = {service.name for service in answer.list_services_response.service}
        assert "csi_feedback.v1.CsiFeedback" in names


def test_estimate_and_truth_of_one_ue(gnb: Any) -> None:
    """Only reports since the first question are kept."""
    gnb.run_ues(scheme="crnet", ues=1, slots=2, ue_base=5)
    assert gnb.call("/v1/ues/5/channel")[1]["report"] is None
    gnb.run_ues(scheme="crnet", ues=1, slots=4, ue_base=6)
    assert gnb.call("/v1/ues/6/channel")[1]["report"] is None
    assert gnb.call("/v1/ues/7/channel")[0] == 404


def test_the_page(gnb: Any) -> None:
    """Its policy lets nothing from elsewhere in."""
    for path, kind in (("/", "text/html"), ("/page/page.css", "text/css"), ("/page/js/main.js", "text/javascript")):
        with urllib.request.urlopen(f"http://{gnb.rest}{path}", timeout=30) as answer:
            assert answer.headers["content-type"].startswith(kind)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert gnb.call("/page/js/nothing.js")[0] == 404
    assert gnb.call("/page/../settings.py")[0] == 404
    assert gnb.call("/", {})[0] == 405
