"""Commands: what they say where there is nothing to work on, and that importing them runs nothing."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from csiemu import cli, experiment
from shared.checkpoints import CheckpointStore
from shared.commands import run_command

NEED_CHECKPOINTS = ("emulate", "gnb", "ue", "evaluate rnn", "checkpoints", "bench serving")


@pytest.mark.parametrize("command", NEED_CHECKPOINTS)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_no_checkpoints(
    command: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *arguments = command.split()
    monkeypatch.setenv("CSIEMU_CHECKPOINTS", "folder" if how == "variable" else "another")
    arguments += ["--checkpoints", "folder"] if how == "option" else []
    monkeypatch.setattr(sys, "argv", ["csiemu", name, *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"csiemu: checkpoints: there are none in {tmp_path / 'folder'}; ")
    assert "--checkpoints or CSIEMU_CHECKPOINTS" in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["csiemu", "gnb_server", "ue_client", "csiemu.training"])
def test_importing_main_runs_nothing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--nonsense"])
    importlib.reload(importlib.import_module(f"{module}.__main__"))


def test_unknown_commands_and_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["csiemu", "fly", "--high"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("csiemu: command: 'fly' is unknown; commands are emulate, gnb, ue")
    assert run_command("csiemu gnb", "gnb_server.command", ["--rest-port", "-1"]) == 2
    assert capsys.readouterr().err.startswith("csiemu: rest-port: '-1': ")


# --- the environment of others ---

NEEDED = {
    "evaluate": ["rnn"],
    "train": ["rnn"],
    "dataset generate": ["--preset=x", "--count=1", "--out=x.mat"],
    "dataset inspect": ["x.mat"],
    "bench": ["serving"],
    "swap": ["rnn", "2"],
    "report": ["runs/a"],
    "compare": ["runs/a", "runs/b"],
    "export": ["runs/a", "--out=x.csv"],
}
"""Arguments that have to be given."""


def settings_of(command: str) -> type[BaseSettings]:
    found: type[BaseSettings] = importlib.import_module(cli.COMMANDS[command][0]).Settings
    return found


def dumped(command: str) -> dict[str, object]:
    arguments = NEEDED.get(command, [])
    return settings_of(command)(_cli_parse_args=arguments).model_dump()  # type: ignore[call-arg]  # a subclass's


@pytest.mark.parametrize("command", sorted(cli.COMMANDS.keys() - {"experiment"}))  # each has options of its own
def test_variables_without_our_prefix_are_nobodys(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dumped(command)
    names = ["AS", "SET", "JSON", "NAME", "FILE", "BENCHMARK", "PRESET", "CSIEMU", "PATH_", "UE_GNB"]
    for field, info in settings_of(command).model_fields.items():
        names += [field, field.upper(), str(info.alias or field).upper(), f"{command.split()[0]}_{field}".upper()]
    for name in set(names):
        monkeypatch.setenv(name, "rubbish")
    assert dumped(command) == before


@pytest.mark.parametrize("command", sorted(cli.COMMANDS.keys() - {"experiment"}))  # each has options of its own
def test_every_option_has_its_variable(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the prefix that `csiemu --help` tells: the command's first word."""
    kind = settings_of(command)
    assert kind.model_config["env_prefix"] == f"CSIEMU_{command.split()[0].upper()}_"
    for field, info in kind.model_fields.items():
        positional = any(
            "CliPositionalArg" in repr(item) or "_CliPositionalArg" in repr(item) for item in info.metadata
        )
        if not positional and field not in ("preset", "count", "out"):
            with monkeypatch.context() as patch:
                patch.setenv(f"CSIEMU_{command.split()[0].upper()}_{(info.alias or field).upper()}", "/proc/no/7.5x")
                try:
                    value = dumped(command)[field]
                    read = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                except ValidationError as error:
                    read = str(error)
                assert "/proc/no/7.5x" in read


@pytest.mark.parametrize(("given", "workers"), [([], "1,2"), (["--workers", ""], ""), (["--workers=2"], "2")])
def test_a_benchmark_without_workers(given: list[str], workers: str) -> None:
    settings = settings_of("bench")(_cli_parse_args=["serving", *given])  # type: ignore[call-arg]  # a subclass's
    assert settings.model_dump()["workers"] == workers


def test_the_help_tells_of_variables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["csiemu", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in cli.COMMANDS)
    assert all(name in printed for name in ("CSIEMU_GNB_REST_PORT", "CSIEMU_CHECKPOINTS", "CSIEMU_DATA"))


# --- nobody reads any more ---


@pytest.mark.parametrize("line", [["--help"], ["checkpoints"], ["checkpoints", "--markdown"], ["ue", "--help"]])
def test_a_closed_pipe_ends_without_a_word(line: list[str], root: Path, small_store: CheckpointStore) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "csiemu", *line],
        cwd=root,
        env=os.environ | {"CSIEMU_CHECKPOINTS": str(small_store.root)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode in (0, 1, 141)  # argparse and rich have their own ways
    assert not [text for text in done.stderr.splitlines() if "states" not in text]  # of the store


# --- checks before work ---


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("emulate", "json"),
        ("emulate", "out"),
        ("gnb", "record"),
        ("gnb", "ready-file"),
        ("ue", "summary"),
        ("ue", "record"),
        ("ue", "token-file"),
        ("evaluate rnn", "json"),
        ("train rnn", "checkpoints"),
        ("train rnn", "state"),
        ("dataset generate --preset=cost2100-indoor --count=1", "out"),
        ("dataset inspect x.mat", "json"),
        ("dataset inspect x.mat", "plot"),
        ("bench serving", "json"),
    ],
)
def test_results_that_could_not_be_written(
    command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["csiemu", *command.split(), f"--{option}=/proc/no/x.mat"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(f"csiemu: {option}: ")
    assert "/proc/no/x.mat" in printed.err
    assert "cannot be written" in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gnb --grpc-port=8000", "rest-port: 8000: is the port of gRPC; wanted another one"),
        ("gnb --grpc-port=7 --rest-port=7", "rest-port: '7': is the port of gRPC"),
        ("ue --gnb=localhost", "gnb: 'localhost': wanted host:port"),
        ("ue --gnb=::1:50051", "gnb: '::1:50051': wanted host:port"),
        ("ue --gnb=localhost:0", "gnb: 'localhost:0': wanted"),
        ("ue --gnb=localhost:65536", "gnb: 'localhost:65536': wanted"),
        ("ue --gnb=http://gnb:50051", "gnb: 'http://gnb:50051': wanted"),
        ("ue --drain-s=-1", "drain-s: '-1'"),
        ("train rnn --device=cuda:99", "device: 'cuda:99' is not here: "),
        ("train rnn --device=meta", "device: 'meta' is not cpu or cuda"),
        ("train rnn --ray=auto", "ray: auto is for a campaign; name its plan with --campaign"),
        ("train rnn --num-gpus=0.5", "num_gpus: 0.5 is for a campaign; name its plan with --campaign"),
        ("experiment hyperrnn.figure-4 --ray=nonsense", "ray: 'nonsense': wanted auto, or host:port of a cluster"),
        ("experiment hyperrnn.figure-4 --ray=auto --num-gpus=2", "num_gpus: 2.0 is not in [0, 1]"),
        ("experiment crnet.table-1 --ray=auto --device=cuda --num-gpus=0", "num_gpus: 0 leaves a training on cuda"),
        ("evaluate rnn --renew-card --seed=3", "seed: 3; a card is renewed in its own conditions only"),
        ("evaluate rnn --scenario=multipath-p2", "scenario antennas: 64; this rnn was built for 16"),
        ("evaluate rnn --renew-card --scenario=multipath-p2", "scenario antennas: 64; this rnn was built for 16"),
        ("evaluate rnn --scenario=multipath-p2:antennas=16,slots=4", "scenario slots: 4; this rnn was built for 8"),
        ("evaluate rnn --scenario=cost2100-indoor-csinet:antennas=16", "scenario slots: 1; this rnn was built for 8"),
        ("evaluate crnet --scenario=multipath-p2:antennas=8,slots=2", "scenario "),
        ("evaluate crnet --scenario=file:antennas=8,first_rows=8,slots=2", "scenario file: empty"),
        (
            "evaluate crnet --scenario=file:file=no.mat,antennas=8,first_rows=8,slots=2",
            "scenario file: 'no.mat' is not",
        ),
        ("evaluate genie_lmmse --scenario=multipath-p8:antennas=16", "scenario paths: 8; this genie_lmmse"),
        ("evaluate crnet --scenario=tr38901-umi-nlos:antennas=8,first_rows=8,last_rows=0,subcarriers=257", "scenario"),
        (
            "evaluate rnn --scenario=tr38901-umi-nlos:antennas=16,slots=8",
            "scenario: tr38901-umi-nlos:antennas=16,slots=8 n",
        ),
        (
            "train rnn --scenario=tr38901-umi-nlos:slots=8 --steps=1",
            "scenario: tr38901-umi-nlos:slots=8 needs Sionna, ",
        ),
        ("dataset generate --preset=tr38901-umi-nlos --count=9 --out=x.npz", "scenario: tr38901-umi-nlos needs Sionna"),
        ("bench channels --presets=cost2100-indoor,tr38901-umi-nlos", "scenario: tr38901-umi-nlos needs Sionna, "),
        ("bench serving --schemes=rnn,nonsense", "checkpoint: 'nonsense' is unknown"),
        ("bench kills --schemes=nonsense", "checkpoint: 'nonsense' is unknown"),
        ("bench kills --ues=3", "ues: 3; wanted a multiple of 2"),
        ("bench endurance --ues=10 --schemes=rnn,rnn,rnn", "ues: 10; wanted a multiple of 3"),
        ("bench endurance --ues=10 --schemes=rnn,nonsense", "checkpoint: 'nonsense' is unknown"),
        ("dataset inspect x.mat --plot=x.txt", "plot: 'x.txt' ends in none of .png, .pdf, .svg"),
    ],
)
def test_refused_in_one_line_before_anything_is_done(
    line: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    small_store: CheckpointStore,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sionna.phy.channel.tr38901", None)  # as if it were not installed
    stores = (
        []
        if line.startswith(("dataset", "experiment"))
        else [f"--checkpoints={tmp_path if 'train' in line else small_store.root}"]
    )
    monkeypatch.setattr(sys, "argv", ["csiemu", *line.split(), *stores])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.startswith(f"csiemu: {says}")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--num-cpus=2"], "num_cpus: 2.0 is for a cluster; name one with --ray"),
        (["--ray=nonsense"], "ray: 'nonsense': wanted auto, or host:port of a cluster, an IPv6 host in brackets"),
        (["--ray=127.0.0.1:9"], "ray: no cluster answers at 127.0.0.1:9; `ray start --head` begins one"),
        (["--ray=auto", "--num-gpus=1.5"], "campaign: training 1: num_gpus: 1.5 is not in [0, 1]"),
    ],
)
def test_clusters_and_shares_that_are_refused(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text('[{"name": "rnn"}]')
    line = [f"--campaign={tmp_path / 'plan.json'}", f"--out={tmp_path / 'out'}", *options]
    assert run_command("csiemu train", "csiemu.train", line) == 2
    assert capsys.readouterr() == ("", f"csiemu: {says}\n")
    assert not (tmp_path / "out").exists()


def test_a_card_is_renewed_for_the_scenario_that_it_was_made_for(small_store: CheckpointStore, tmp_path: Path) -> None:
    """Its figures, its probe and what is taken for its conditions from then on; weights and encoder stay."""
    store = CheckpointStore(tmp_path / "store")
    shutil.copytree(small_store.root / "rnn", store.root / "rnn")
    before, scenario = store.card("rnn", 1), "multipath-p2:antennas=16,snr_db=3.0"
    line = ["rnn", "--renew-card", f"--scenario={scenario}", "--ues=64", f"--checkpoints={store.root}"]
    assert run_command("csiemu evaluate", "csiemu.evaluate", line) == 0
    card = store.card("rnn", 1)
    assert card["scenario"] == card["evaluation"]["settings"]["scenario"] == scenario
    assert card["probe"] != before["probe"]
    assert all(card[field] == before[field] for field in ("encoder_id", "sha256", "payload", "training"))
    assert str(store.load("rnn").scenario) == scenario


# --- one bad thing among good ones ---


@pytest.fixture
def mixed_store(small_store: CheckpointStore, tmp_path: Path) -> CheckpointStore:
    """Good checkpoints, and what an editor, a backup or a killed training leaves behind."""
    store = CheckpointStore(tmp_path / "store")
    for name in ("rnn", "dldnn", "crnet"):
        shutil.copytree(small_store.root / name, store.root / name)
    shutil.copytree(store.root / "dldnn", store.root / "dldnn.bak")
    shutil.copytree(store.root / "rnn" / "1", store.root / "rnn" / "1-old")
    (store.root / "notes.txt").write_text("notes")
    (store.root / ".hidden").mkdir()
    (store.root / "hyperrnn").mkdir()
    (store.root / "hyperdnn" / "1").mkdir(parents=True)
    (store.root / "rnn" / "2").touch()
    for version, card in ((3, "{"), (4, "[1]"), (5, "{}"), (6, None)):
        shutil.copytree(store.root / "rnn" / "1", store.root / "rnn" / str(version))
        lacking = {**store.card("rnn", 1), "version": version}
        del lacking["evaluation"]
        text = card or json.dumps(lacking)
        (store.root / "rnn" / str(version) / "card.json").write_text(text)
    shutil.copytree(store.root / "rnn", store.root / "uplink_only")
    (store.root / "uplink_only" / "1" / "card.json").write_text("no JSON")
    return store


@pytest.mark.parametrize("options", [[], ["--markdown"]])
def test_a_listing_with_bad_ones_among_good(
    mixed_store: CheckpointStore, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = [f"--checkpoints={mixed_store.root}", *options]
    assert run_command("csiemu checkpoints", "csiemu.list_checkpoints", line) == 0
    printed = capsys.readouterr()
    for good in ("rnn/1", "dldnn/1", "crnet/1"):
        assert f" {good} " in printed.out
    assert "rnn/3" not in printed.out
    reasons = dict(
        text.removeprefix(f"csiemu: {mixed_store.root}/").split(": ", 1) for text in printed.err.splitlines()
    )
    assert reasons.pop("rnn/6").startswith("card.json lacks figures; csiemu evaluate rnn --version 6 --renew-card")
    for name, says in {
        "dldnn.bak": "not the name",
        "notes.txt": "not the name",
        "hyperrnn": "has no versions",
        "hyperdnn/1": "has no card.json",
        "rnn/1-old": "not the number",
        "rnn/2": "not the number",
        "rnn/3": "card.json cannot be read",
        "rnn/4": "card.json cannot be read",
        "rnn/5": "card.json lacks",
        "uplink_only/6": "card.json is that of rnn/6",
        "uplink_only/1": "card.json cannot be read",
    }.items():
        assert says in reasons.pop(name)
    assert all(name.startswith("uplink_only/") for name in reasons)
    assert not any("hidden" in name for name in reasons)


def test_a_summary_of_some(small_store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["gmtc/1", "rnn/1", "--summary", "--markdown", f"--checkpoints={small_store.root}"]
    assert run_command("csiemu checkpoints", "csiemu.list_checkpoints", line) == 0
    titles, _, mixture, rnn = capsys.readouterr().out.strip().splitlines()
    assert titles == "| name/version | scenario | domain | bits | NMSE (dB) | SGCS |"
    found = small_store.card("rnn", 1)["evaluation"]
    assert rnn.startswith("| rnn/1 | multipath-p2:antennas=16 | spatial | 20 | ")
    assert f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f} | {found['sgcs']:.3f}" in rnn
    assert mixture.startswith("| gmtc/1 | ")
    line[0] = "gmtc/9"
    assert run_command("csiemu checkpoints", "csiemu.list_checkpoints", line) == 2
    assert "names: 'gmtc/9' is unknown; wanted NAME/VERSION out of " in capsys.readouterr().err


def test_experiments_are_found_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for line, code, says in (
        ([], 0, "\n  rate-distortion\n"),
        (["rate-distortion", "--help"], 0, "--scenario"),
        (
            ["crnet.table-9"],
            2,
            "experiment: 'crnet.table-9' is unknown; experiments are after-a-loss, air, channels, codebooks",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["csiemu", "experiment", *line])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        assert caught.value.code == code
        assert says in printed.out + printed.err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # of runpy, where another imported it
@pytest.mark.parametrize("name", experiment.names())
def test_every_experiment_tells_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["csiemu", "experiment", name, "--help"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")
