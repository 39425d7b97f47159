from __future__ import annotations

import ast
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_safetensors

from shared.channels.scenario import Scenario
from shared.checkpoints import CheckpointStore, encoder_id, parameter_counts
from shared.errors import Conflict, CsiError, DamagedCheckpoint, InvalidInput, NotFound
from shared.link.payload import Field, PayloadLayout
from shared.schemes import Scheme
from shared.schemes.hyperrnn import Rnn
from shared.schemes.pilots import NoUplinkConfig

MakeScheme = Callable[..., Scheme]
SCENARIO = "multipath-p2:antennas=4,slots=2"
PARTS = ("encoder", "decoder")
BAD_NAMES = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "A", "Rnn", "-a", "_a", "a b", "a\n", "a\0", "ä", "a.b",
    "a" * 65,
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, make_scheme: MakeScheme) -> Path:
    """A store with dldnn/1 (it has integer buffers) and dldnn/12."""
    root = tmp_path_factory.mktemp("saved")
    store = CheckpointStore(root)
    for version in (1, 12):
        scheme = make_scheme("dldnn", SCENARIO, seed=version, feedback_bits=6, uplink_reading="none")
        store.save("dldnn", version, scheme, {"note": "mine"})
    return root


@pytest.fixture
def store(saved: Path, tmp_path: Path) -> CheckpointStore:
    """A copy to damage."""
    return CheckpointStore(Path(shutil.copytree(saved, tmp_path / "store")))


def change_card(store: CheckpointStore, **fields: Any) -> None:
    path = store.root / "dldnn" / "1" / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_part(store: CheckpointStore, part: str, data: bytes) -> None:
    """Put other bytes in place of a part, and their hash on the card."""
    (store.root / "dldnn" / "1" / f"{part}.safetensors").write_bytes(data)
    digests = store.card("dldnn", 1)["sha256"]
    change_card(store, sha256={**digests, part: hashlib.sha256(data).hexdigest()})


def assert_damaged(store: CheckpointStore, *words: str) -> None:
    with pytest.raises(DamagedCheckpoint) as refused:
        store.load("dldnn", 1)
    for word in ("checkpoint dldnn/1: ", *words):
        assert word in str(refused.value)
    assert store.load("dldnn", 12).version == 12


@pytest.mark.parametrize("half", [True, False], ids=["fp16", "fp32"])
def test_weights_come_back_as_stored(tmp_path: Path, make_scheme: MakeScheme, half: bool) -> None:
    scheme = make_scheme("dldnn", SCENARIO, feedback_bits=6, uplink_reading="none").train()
    for norm in scheme.decoder.norms:
        norm.num_batches_tracked += 70_001  # beyond fp16
    before = {name: value.clone() for name, value in scheme.state_dict().items()}
    store = CheckpointStore(tmp_path)
    written = store.save("mine", 3, scheme, {"training": {"steps": 5}}, half=half)
    read = CheckpointStore(tmp_path).load("mine")
    assert (read.name, read.version, read.card) == ("mine", 3, written.card)
    assert not read.scheme.training
    loaded = read.scheme.state_dict()
    assert loaded.keys() == before.keys()
    for name, value in before.items():
        expected = value.half().float() if half and value.is_floating_point() and value.dim() > 1 else value
        assert torch.equal(loaded[name], expected), name
        assert loaded[name].dtype == expected.dtype


def test_fp16_files_are_half_as_long(tmp_path: Path, make_scheme: MakeScheme) -> None:
    store = CheckpointStore(tmp_path)
    for name, half in (("short", True), ("long", False)):
        store.save(name, 1, make_scheme("rnn", SCENARIO, uplink_reading="none"), {}, half=half)
    for part in PARTS:
        short, long = ((tmp_path / name / "1" / f"{part}.safetensors").stat().st_size for name in ("short", "long"))
        assert long / short == pytest.approx(2, rel=0.01)


def test_loaded_scheme_decodes_as_the_saved_one(
    tmp_path: Path, make_scheme: MakeScheme, make_samples: Callable[..., Any], over_the_wire: Callable[..., Any]
) -> None:
    scheme = make_scheme("hyperrnn", SCENARIO, feedback_bits=6, beam_power=True)
    loaded = CheckpointStore(tmp_path).save("h", 1, scheme, {}).scheme
    payload, estimate = over_the_wire(scheme, make_samples(5))
    assert over_the_wire(loaded, make_samples(5))[0] == payload
    assert torch.equal(over_the_wire(loaded, make_samples(5))[1], estimate)


def test_versions_with_one_encoder_keep_it_once(tmp_path: Path, make_scheme: MakeScheme) -> None:
    store = CheckpointStore(tmp_path)
    for version in (1, 2):
        scheme = make_scheme("dldnn", SCENARIO, uplink_reading="none")
        scheme.decoder.norms[0].bias.data += version
        store.save("mine", version, scheme, {})
    assert [path.name for path in sorted((tmp_path / "mine" / "2").iterdir())] == ["card.json", "decoder.safetensors"]
    first, second = (store.load("mine", version) for version in (1, 2))
    assert first.encoder_id == second.encoder_id
    assert not torch.equal(first.scheme.decoder.norms[0].bias, second.scheme.decoder.norms[0].bias)
    encoder = tmp_path / "mine" / "1" / "encoder.safetensors"
    encoder.rename(encoder.parent.with_name("2") / encoder.name)  # wherever it is
    assert store.load("mine", 1).encoder_id == store.load("mine", 2).encoder_id
    encoder.parent.with_name("2").joinpath(encoder.name).write_bytes(b"something else")
    for version in (1, 2):
        with pytest.raises(DamagedCheckpoint, match=r"encoder\.safetensors"):
            store.load("mine", version)


def test_what_an_interrupted_save_has_left_is_written_again(tmp_path: Path, make_scheme: MakeScheme) -> None:
    store, scheme = CheckpointStore(tmp_path), make_scheme("dldnn", SCENARIO, uplink_reading="none")
    (tmp_path / "mine" / "1").mkdir(parents=True)
    for part in PARTS:
        (tmp_path / "mine" / "1" / f"{part}.safetensors").write_bytes(b"half of it")
    assert store.save("mine", 1, scheme, {}).encoder_id == encoder_id(scheme)


def test_card_says_what_was_saved(store: CheckpointStore) -> None:
    checkpoint = store.load("dldnn", 1)
    folder = store.root / "dldnn" / "1"
    hashes = {part: hashlib.sha256((folder / f"{part}.safetensors").read_bytes()).hexdigest() for part in PARTS}
    assert json.loads((folder / "card.json").read_text()) == checkpoint.card
    expected = {
        "name": "dldnn",
        "version": 1,
        "scheme": "dldnn",
        "scenario": SCENARIO,
        "payload": "signs:6x1",
        "feedback_bits": 6,
        "encoder_id": encoder_id(checkpoint.scheme),
        "weights": "fp16",
        "sha256": hashes,
        "note": "mine",
    }
    assert {name: checkpoint.card[name] for name in expected} == expected
    assert NoUplinkConfig(**checkpoint.card["config"]) == checkpoint.scheme.config
    assert checkpoint.encoder_id == checkpoint.card["encoder_id"]
    assert checkpoint.scenario == Scenario.parse(SCENARIO)


def test_names_and_versions(store: CheckpointStore, make_scheme: MakeScheme) -> None:
    assert store.names() == ["dldnn"]
    store.save("a-1_b", 2, make_scheme("uplink_only", SCENARIO, feedback_bits=0), {})
    (store.root / "no-card" / "1").mkdir(parents=True)
    assert store.names() == ["a-1_b", "dldnn"]
    assert store.versions("dldnn") == [1, 12]
    assert store.folder("dldnn", 12) == store.root / "dldnn" / "12"
    assert CheckpointStore(store.root / "nowhere").names() == []


def test_default_version_is_the_first(store: CheckpointStore) -> None:
    assert store.load("dldnn").version == 1
    assert store.load_named("dldnn").version == 1
    assert store.load_named("dldnn/12").version == 12


@pytest.mark.parametrize("text", ["dldnn/0", "dldnn/-1", "dldnn/x", "dldnn/1/2", "dldnn/../dldnn", "dldnn/01", "../x"])
def test_named_version_that_is_no_number_is_refused(store: CheckpointStore, text: str) -> None:
    with pytest.raises(InvalidInput):
        store.load_named(text)


@pytest.mark.parametrize("part", PARTS)
def test_changed_byte_is_found(store: CheckpointStore, part: str) -> None:
    path = store.root / "dldnn" / "1" / f"{part}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert_damaged(store, f"{part}.safetensors has sha256 {hashlib.sha256(data).hexdigest()}, card says")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("length", [0, 7, 100, -1])
@pytest.mark.parametrize("hashed", [False, True], ids=["old-hash", "new-hash"])
def test_truncated_file_is_refused(store: CheckpointStore, part: str, length: int, hashed: bool) -> None:
    path = store.root / "dldnn" / "1" / f"{part}.safetensors"
    data = path.read_bytes()[:length]
    path.write_bytes(data)
    if hashed:
        replace_part(store, part, data)
    assert_damaged(store)


@pytest.mark.parametrize("part", PARTS)
def test_foreign_tensors_are_refused(store: CheckpointStore, part: str) -> None:
    replace_part(store, part, to_safetensors({"conv1.weight": torch.zeros(3, 3)}))
    assert_damaged(store, "conv1.weight")


def test_tensors_of_another_size_are_refused(store: CheckpointStore, make_scheme: MakeScheme) -> None:
    other = make_scheme("dldnn", SCENARIO, feedback_bits=7, uplink_reading="none")
    replace_part(store, "decoder", to_safetensors(other.decoder.state_dict()))
    assert_damaged(store, "layers.0.weight")


@pytest.mark.parametrize("part", PARTS)
def test_missing_file_is_refused(store: CheckpointStore, part: str) -> None:
    (store.root / "dldnn" / "1" / f"{part}.safetensors").unlink()
    assert_damaged(store, f"{part}.safetensors")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("part", PARTS)
def test_pickle_in_place_of_a_part_is_never_run(store: CheckpointStore, tmp_path: Path, part: str) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    replace_part(store, part, trap)
    assert_damaged(store)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()


def test_weights_of_another_encoder_are_refused(store: CheckpointStore) -> None:
    """Well-formed, hashed, but not those that the card's encoder_id stands for."""
    other = store.load("dldnn", 12)
    replace_part(store, "encoder", (store.root / "dldnn" / "12" / "encoder.safetensors").read_bytes())
    assert_damaged(store, f"encoder_id {other.encoder_id}", store.card("dldnn", 1)["encoder_id"])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"encoder_id": "0123456789abcdef"}, "0123456789abcdef"),
        ({"payload": "signs:7x1"}, "signs:7x1"),
        ({"format": 2}, "format is 2, wanted 1"),
        ({"format": "1"}, "wanted 1"),
        ({"scheme": "resnet"}, "resnet"),
        ({"scheme": "rnn"}, "estimator"),
        ({"scenario": "elsewhere"}, "elsewhere"),
        ({"scenario": "multipath-p2:antennas=0"}, "antennas"),
        ({"scenario": "multipath-p2:antennas=5"}, "size mismatch"),
        ({"config": {"colour": "red"}}, "colour"),
        ({"config": None}, ""),
        ({"config": {"feedback_bits": -1}}, "feedback_bits"),
        ({"config": {"feedback_bits": "six"}}, ""),
        ({"sha256": {}}, "encoder"),
        ({"sha256": "0"}, ""),
        ({"scheme": ["dldnn"]}, ""),
    ],
)
def test_card_that_does_not_fit_is_refused(store: CheckpointStore, fields: dict[str, Any], word: str) -> None:
    change_card(store, **fields)
    assert_damaged(store, word)


@pytest.mark.parametrize("scenario", [None, 5, ["multipath-p2"]])
def test_card_whose_scenario_is_no_text_is_refused(store: CheckpointStore, scenario: Any) -> None:
    change_card(store, scenario=scenario)
    assert_damaged(store)


@pytest.mark.parametrize(
    "field", ["format", "scheme", "config", "scenario", "payload", "feedback_bits", "encoder_id", "sha256"]
)
def test_card_without_a_field_is_refused(store: CheckpointStore, field: str) -> None:
    path = store.root / "dldnn" / "1" / "card.json"
    card = json.loads(path.read_text())
    del card[field]
    path.write_text(json.dumps(card))
    assert_damaged(store, "card.json", field)


@pytest.mark.parametrize(
    "text", ["", "{", "not json", "null", "5", '"\ud800'.encode("utf-8", "surrogatepass"), b"\xff\xfe"]
)
def test_card_that_is_not_json_is_refused(store: CheckpointStore, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (store.root / "dldnn" / "1" / "card.json").write_bytes(data)
    assert_damaged(store, "card.json cannot be read")


@pytest.mark.parametrize("text", ["[]", '"card"'])
def test_card_that_is_no_object_is_refused(store: CheckpointStore, text: str) -> None:
    (store.root / "dldnn" / "1" / "card.json").write_text(text)
    assert_damaged(store, "card.json")


def test_version_without_a_card_is_unknown(store: CheckpointStore) -> None:
    (store.root / "dldnn" / "1" / "card.json").unlink()
    with pytest.raises(NotFound, match="version: dldnn has no version 1; it has 12"):
        store.load("dldnn", 1)


def test_unknown_name_is_refused_with_the_known_ones(store: CheckpointStore) -> None:
    for ask in (store.versions, store.load, store.load_named):
        with pytest.raises(NotFound, match="checkpoint: 'crnet' is unknown; there are dldnn"):
            ask("crnet")


@pytest.mark.parametrize("version", [2, 0, -1, 10**12])
def test_unknown_version_is_refused_with_the_known_ones(store: CheckpointStore, version: int) -> None:
    for ask in (store.folder, store.card, store.load):
        with pytest.raises(NotFound, match=f"version: dldnn has no version {version}; it has 1, 12"):
            ask("dldnn", version)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_name_is_refused(store: CheckpointStore, tmp_path: Path, make_scheme: MakeScheme, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput, match="is not a name"):
        store.versions(name)
    for ask in (store.folder, store.card, store.load):
        with pytest.raises(InvalidInput, match="is not a name"):
            ask(name, 1)
    with pytest.raises(InvalidInput, match="is not a name"):
        store.save(name, 1, make_scheme("uplink_only", SCENARIO, feedback_bits=0), {})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "0", "hyperrnn-beams", "a_b-c9", "a" * 64])
def test_names_that_are_allowed(tmp_path: Path, make_scheme: MakeScheme, name: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save(name, 1, make_scheme("uplink_only", SCENARIO, feedback_bits=0), {})
    assert store.names() == [name]
    assert store.load(name).name == name


def test_an_existing_version_is_never_overwritten(store: CheckpointStore, make_scheme: MakeScheme) -> None:
    files = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    with pytest.raises(Conflict, match="dldnn/1 exists already"):
        store.save("dldnn", 1, make_scheme("rnn", SCENARIO, uplink_reading="none"), {})
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("version", [0, -1, 10**9])
def test_version_that_could_not_be_loaded_is_not_written(tmp_path: Path, make_scheme: MakeScheme, version: int) -> None:
    scheme = make_scheme("uplink_only", SCENARIO, feedback_bits=0)
    with pytest.raises(CsiError):
        CheckpointStore(tmp_path).save("x", version, scheme, {})
    assert not list(tmp_path.rglob("card.json"))


def test_annotations_are_added_to_the_stored_card(store: CheckpointStore) -> None:
    checkpoint = store.load("dldnn", 1)
    annotated = store.annotate(checkpoint, {"evaluation": {"nmse_db": -1.5}, "note": "other"})
    assert annotated.card == {**checkpoint.card, "evaluation": {"nmse_db": -1.5}, "note": "other"}
    assert store.load("dldnn", 1).card == annotated.card
    assert annotated.scheme is checkpoint.scheme


def test_a_card_that_is_not_written_to_its_end_leaves_the_one_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = store.load("dldnn", 1)
    write = Path.write_text

    def write_half(path: Path, text: str) -> None:
        write(path, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(KeyboardInterrupt):
        store.annotate(checkpoint, {"note": "other"})
    assert store.load("dldnn", 1).card == checkpoint.card


@pytest.mark.parametrize("package", ["shared", "csiemu/training"])
def test_nothing_is_ever_unpickled(root: Path, package: str) -> None:
    """No module imports a pickle, nor torch.load, joblib or the like; NumPy's reader is told not to."""
    files = sorted((root / package).rglob("*.py"))
    assert files
    forbidden = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.split(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, path
                assert node.module != "torch" or "load" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in {ast.unparse(keyword) for keyword in node.keywords}, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert f"{node.value.id}.{node.attr}" not in ("torch.load", "torch.hub"), path


@pytest.fixture
def small(make_scheme: MakeScheme) -> Scheme:
    return make_scheme("rnn", SCENARIO, feedback_bits=6, uplink_reading="none")


def test_encoder_id_is_16_hexadecimal_digits(small: Scheme, make_scheme: MakeScheme) -> None:
    again = make_scheme("rnn", SCENARIO, feedback_bits=6, uplink_reading="none")
    assert encoder_id(small) == encoder_id(again)
    assert len(encoder_id(small)) == 16
    int(encoder_id(small), 16)


def test_encoder_id_changes_with_any_encoder_tensor(small: Scheme) -> None:
    """By one unit in the last place of one value, the pilots among them."""
    seen = {encoder_id(small)}
    state = small.encoder.state_dict()
    assert "pilots.parts" in state
    for value in state.values():
        flat = value.view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1)
        seen.add(encoder_id(small))
    assert len(seen) == len(state) + 1


def test_encoder_id_does_not_change_with_the_decoder(small: Scheme) -> None:
    before = encoder_id(small)
    with torch.no_grad():
        for parameter in small.decoder.parameters():
            parameter += 1
    assert encoder_id(small) == before


def test_encoder_id_changes_with_the_layout(small: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights with the same bits in another form."""
    before = encoder_id(small)
    monkeypatch.setattr(Rnn, "layout", PayloadLayout((Field("signs", 3, 2),)))
    assert encoder_id(small) != before


def test_encoder_id_is_that_of_the_stored_weights(tmp_path: Path, small: Scheme) -> None:
    """Saving rounds the saved scheme's own weights too, so that it goes on as what was stored."""
    unrounded = encoder_id(small)
    checkpoint = CheckpointStore(tmp_path).save("rnn", 1, small, {})
    assert checkpoint.encoder_id == encoder_id(small) == encoder_id(checkpoint.scheme)
    assert checkpoint.encoder_id != unrounded


def test_parameter_counts(small: Scheme) -> None:
    """Pilots 2 x 4 x 2; feedback DNN 4-1024-512-256-6; estimator W_A 256 x 6, b_A, W_C 256 x 256, W_B 8 x 256, b_B."""
    encoder = 2 * 4 * 2 + 5 * 1024 + 1025 * 512 + 513 * 256 + 257 * 6
    decoder = 256 * 6 + 256 + 256 * 256 + 8 * 256 + 8
    assert parameter_counts(small) == {"encoder": encoder, "decoder": decoder}
