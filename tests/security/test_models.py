"""Models from elsewhere: checkpoints, folders, snapshots of the hub, tokenizers. Each is opened by the commands that people run."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint

from peav import PEAV
from peav.checkpoints import CheckpointError
from peav.checkpoints.pickled import check_pickled
from peav.cli.main import main
from peav.training import PeavModule
from peav.trust import TrustError
from tests.security.hostile import REFUSALS, Bomb, Scene, module, refused_by_command, save

Spoil = Callable[[Scene], Any]


def encoder(config: dict[str, Any], name: str = "audio") -> dict[str, Any]:
    found: dict[str, Any] = (config["encoders"] if "encoders" in config else config["hyper_parameters"]["encoders"])[
        name
    ]
    return found


def dotted(config: dict[str, Any]) -> None:
    encoder(config)["class_path"] = "evil_encoders.Evil"


def system(config: dict[str, Any]) -> None:
    encoder(config).update(class_path="os.system", init_args={"command": "touch canary"})


def argument(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        encoder(config, name)["init_args"][key] = value

    return change


def video(**init_args: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        encoder(config).update(class_path="FrameVideoEncoder", init_args={"dim": 16, **init_args})

    return change


def nested(config: dict[str, Any]) -> None:
    value: Any = []
    for _ in range(60):
        # A pickle can hold the same list twice, and so 2^60 of them in a few bytes.
        value = [value, value] if "hyper_parameters" in config else [value]
    encoder(config)["init_args"]["dim"] = value


#: Settings that a model's folder and a checkpoint may have alike, and what is said.
SETTINGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a class by its dotted path": (dotted, "evil_encoders.Evil"),
    "a function for a class": (system, "os.system"),
    "no name of a class": (lambda c: encoder(c).update(class_path="os; import x"), "no name of an encoder"),
    "a relative module": (lambda c: encoder(c).update(class_path="..evil.Evil"), "no name of an encoder"),
    "another class of ours": (
        lambda c: encoder(c).update(class_path="peav.cli.commands.embed"),
        "not among the registered",
    ),
    "a tokenizer elsewhere": (argument("text", "tokenizer", "/etc/passwd"), "tokenizer='/etc/passwd'"),
    "a tokenizer above": (argument("text", "tokenizer", "../secret.json"), "leads to a file or to the network"),
    "a pretrained text model": (argument("text", "pretrained", "evil/model"), "pretrained='evil/model'"),
    "an architecture that fetches": (argument("text", "architecture", "timm_backbone"), "architecture"),
    "an option that is a place": (argument("text", "options", {"_name_or_path": "evil/model"}), "options"),
    "weights of the hub": (video(frame_model="hf-hub:evil/model"), "frame_model='hf-hub:evil/model'"),
    "weights of a folder": (video(frame_model="local-dir:/tmp/evil"), "frame_model"),
    "a pickle of timm's": (video(frame_options={"checkpoint_path": "evil.pth"}), "frame_options"),
    "weights that timm would fetch": (video(frame_options={"pretrained_cfg": {"url": "http://evil"}}), "frame_options"),
    "timm's own weights": (video(pretrained=True), "pretrained=True"),
    "a billion values": (nested, "nested"),
    "a width beyond all": (argument("audio", "dim", 10**12), "10,000,000"),
    "a width that does not fit": (argument("audio", "dim", 9_000_000), "describes a model of more than twice"),
    "layers without end": (argument("audio", "num_layers", 5_000_000), "describes a model of more than"),
    "no heads": (argument("audio", "num_heads", 0), "describes what cannot be built"),
    "a word for a number": (argument("audio", "dim", "wide"), "describes what cannot be built"),
    "an unknown argument": (argument("audio", "evil", 1), "describes what cannot be built"),
    "less than nothing": (argument("audio", "dim", -16), "describes what cannot be built"),
    "not a number": (argument("audio", "dropout", float("nan")), "nan"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_folder(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = SETTINGS[name]
    scene.change_config(spoil)
    assert said in refused_by_command(scene.embed(), capsys)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = SETTINGS[name]
    scene.change_checkpoint(spoil)
    assert said in refused_by_command(scene.evaluate(), capsys)


def test_the_same_checkpoint_without_a_spoiled_setting_is_evaluated(scene: Scene) -> None:
    assert main(scene.evaluate()) == 0
    assert main(scene.embed(scene.checkpoint)) == 0


def test_init_from(scene: Scene) -> None:
    scene.change_checkpoint(dotted)
    with pytest.raises(TrustError, match=r"evil_encoders\.Evil.*model\.trust=true"):
        module(encoders=None, embedding_dim=None, init_from=str(scene.checkpoint))


def test_an_objective(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.change_checkpoint(
        lambda saved: saved["hyper_parameters"]["objectives"]["caption"].update(class_path="evil_encoders.EvilPair")
    )
    assert "evil_encoders.EvilPair" in refused_by_command(scene.evaluate(), capsys)
    assert "evil_encoders.EvilPair" in refused_by_command(scene.embed(scene.checkpoint), capsys)


def test_what_a_checkpoint_says_of_trust_counts_for_nothing(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(saved: dict[str, Any]) -> None:
        dotted(saved)
        saved["hyper_parameters"] |= {
            "trust": True,
            "_instantiator": "evil_encoders.Evil",
            "_class_path": "evil_encoders.Evil",
        }

    scene.change_checkpoint(spoil)
    assert "evil_encoders.Evil" in refused_by_command(scene.evaluate(), capsys)


def test_a_checkpoint_cannot_lead_to_another(scene: Scene) -> None:
    scene.change_checkpoint(
        lambda saved: saved["hyper_parameters"].update(
            init_from="evil/model", _instantiator="evil_encoders.Evil", trust=True
        )
    )
    assert isinstance(PeavModule.load_from_checkpoint(scene.checkpoint), PeavModule)


def bare_pickle(scene: Scene) -> None:
    scene.pickled(scene.checkpoint)


def pickle_inside(scene: Scene) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"encoders": {"audio": Bomb(scene.canary)}}}, scene.checkpoint)


def bomb(scene: Scene) -> None:
    with zipfile.ZipFile(scene.checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))
        archive.writestr("archive/version", "3\n")


def cut_short(scene: Scene) -> None:
    data = scene.checkpoint.read_bytes()
    scene.checkpoint.write_bytes(data[: len(data) // 2])


def of_another_program(scene: Scene) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": ["encoders", "objectives"]}, scene.checkpoint)


@pytest.mark.parametrize("spoil", [bare_pickle, pickle_inside, bomb, cut_short, of_another_program])
def test_a_file_that_is_no_plain_checkpoint(scene: Scene, spoil: Spoil, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(scene)
    for words in (
        scene.evaluate(),
        scene.embed(scene.checkpoint),
        ["convert", str(scene.checkpoint), str(scene.folder / "x")],
    ):
        assert str(scene.checkpoint) in refused_by_command(words, capsys)


def write_safetensors(path: Path, header: bytes, length: int | None = None, body: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def listed(name: str) -> Spoil:
    def spoil(scene: Scene) -> None:
        (scene.model / "model.safetensors").unlink()
        (scene.model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))

    return spoil


def pickles_alone(scene: Scene) -> None:
    (scene.model / "model.safetensors").unlink()
    scene.pickled(scene.model / "pytorch_model.bin")


def large_config(scene: Scene) -> None:
    with (scene.model / "config.json").open("ab") as stream:
        stream.truncate(1 << 30)


FOLDERS: dict[str, tuple[Spoil, str]] = {
    "weights that are a pickle": (lambda s: s.pickled(s.model / "model.safetensors"), "no whole safetensors file"),
    "a pickle alone": (pickles_alone, "would have to be unpickled"),
    "a header of 10 GB": (
        lambda s: write_safetensors(s.model / "model.safetensors", b"{}", 10 << 30),
        "no whole safetensors",
    ),
    "a tensor beyond the file": (
        lambda s: write_safetensors(
            s.model / "model.safetensors", b'{"x":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
        ),
        "no whole safetensors",
    ),
    "weights listed above": (listed("../../evil.safetensors"), "is no name of a file"),
    "weights listed elsewhere": (listed("/etc/passwd"), "is no name of a file"),
    "weights listed by a drive": (listed("C:evil.safetensors"), "is no name of a file"),
    "weights that link out": (lambda s: link(s.model / "model.safetensors", s.secret), "is a link out of its folder"),
    "a tokenizer that links out": (lambda s: link(s.model / "tokenizer.json", s.secret), "is a link out of its folder"),
    "a configuration that links out": (
        lambda s: link(s.model / "config.json", s.secret),
        "is a link out of its folder",
    ),
    "weights without end": (
        lambda s: link(s.model / "model.safetensors", Path("/dev/zero")),
        "holds no model.safetensors",
    ),
    "a configuration of a gigabyte": (large_config, "bytes; more than"),
    "a configuration nested without end": (
        lambda s: (s.model / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
        "nested too deep",
    ),
    "a tokenizer that is none": (
        lambda s: (s.model / "tokenizer.json").write_text('{"model": {"type": "evil"}}'),
        "tokenizer is not one",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_files_of_a_folder(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = FOLDERS[name]
    spoil(scene)
    message = refused_by_command(scene.embed(), capsys)
    assert said in message and "hunter2" not in message


def test_code_beside_a_model_is_not_read(scene: Scene) -> None:
    """What other programs would run or read: auto_map, YAML of a run, a module of the name of one of ours."""
    evil = f"import os\nos.mkdir({str(scene.canary)!r})\n"
    for name in ("modeling.py", "conftest.py", "sitecustomize.py", "peav.py"):
        (scene.model / name).write_text(evil)
    yaml = f"!!python/object/apply:os.mkdir [{scene.canary}]\n"
    for folder in (scene.model, scene.checkpoint.parent, scene.checkpoint.parents[1]):
        for name in ("config.yaml", "hparams.yaml", "lightning_config.yaml"):
            (folder / name).write_text(yaml)
    scene.change_config(
        lambda c: c.update(tokenizer_class="Evil", auto_map={"AutoTokenizer": "modeling.Evil"}), "tokenizer_config.json"
    )
    assert main(scene.embed()) == 0
    assert main(scene.evaluate()) == 0


def test_a_folder_of_transformers_with_code(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    code = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    (scene.model / "modeling.py").write_text(f"import os\nos.mkdir({str(scene.canary)!r})\n")
    (scene.model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))
    assert "holds a model of another kind" in refused_by_command(scene.embed(), capsys)


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
def test_a_text_model_to_start_from(scene: Scene, weights: str) -> None:
    """The user's own words name the folder; what lies in it is still not run."""
    folder = scene.folder / "bert"
    folder.mkdir()
    code = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model", "AutoTokenizer": ["modeling.Tok", None]}
    config = {"model_type": "bert" if weights.endswith("bin") else "evil", "hidden_size": 8, "num_hidden_layers": 1}
    (folder / "config.json").write_text(
        json.dumps({**config, "num_attention_heads": 2, "vocab_size": 8, "auto_map": code})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": code}))
    (folder / "modeling.py").write_text(f"import os\nos.mkdir({str(scene.canary)!r})\n")
    scene.pickled(folder / weights)
    tokenizer = str(scene.model / "tokenizer.json")
    for init_args in ({"pretrained": str(folder), "tokenizer": tokenizer}, {"tokenizer": str(folder)}):
        with pytest.raises((*REFUSALS, OSError)):
            module(
                encoders={
                    "audio": {"class_path": "MelAudioEncoder"},
                    "text": {"class_path": "TextEncoder", "init_args": init_args},
                }
            )


def as_snapshot(scene: Scene) -> Path:
    """Lays the model out as the hub's cache does: links into a folder of blobs."""
    repository = scene.folder / "models--someone--model"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(scene.model.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_snapshot_of_the_hub(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = as_snapshot(scene)
    assert main(scene.embed(snapshot)) == 0
    (scene.folder / "out.npz").unlink()
    link(snapshot / "tokenizer.json", scene.secret)
    message = refused_by_command(scene.embed(snapshot), capsys)
    assert "is a link out of its folder" in message


def test_a_class_of_a_snapshot(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.change_config(dotted)
    assert "evil_encoders.Evil" in refused_by_command(scene.embed(as_snapshot(scene)), capsys)


def test_a_resumed_run_reads_no_pickle(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"encoders": dict(module().hparams["encoders"]), "objectives": dict(module().hparams["objectives"])}
    words = ["validate", f"--model={json.dumps({**config, 'embedding_dim': 16})}", f"--data.data={scene.data}"]
    scene.pickled(scene.checkpoint)
    assert "no checkpoint that torch.save wrote" in refused_by_command(
        [*words, f"--ckpt_path={scene.checkpoint}"], capsys
    )
    folder = scene.folder / "sharded"
    folder.mkdir()
    scene.pickled(folder / ".metadata")
    assert "not opened" in refused_by_command([*words, f"--ckpt_path={folder}"], capsys)
    message = refused_by_command([*words, f"--ckpt_path={scene.checkpoint}", "--weights_only=false"], capsys)
    assert "weights_only=false" in message
    assert "is not fetched" in refused_by_command([*words, "--ckpt_path=http://example.org/x.ckpt"], capsys)


def sharded(folder: Path, rate: Any) -> Path:
    """Writes a folder as FSDP2 does."""
    state = {"state_dict": {"weight": torch.ones(2, 3)}, "optimizer_0": {"param_groups": {"lr": rate}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.distributed.checkpoint.save(state, checkpoint_id=str(folder))
    torch.save({"epoch": 1}, folder / "meta.pt")
    return folder


def test_a_folder_of_fsdp2(scene: Scene) -> None:
    good = sharded(scene.folder / "good", 0.1)
    check_pickled(good)
    with pytest.raises(TrustError, match="is not opened"):
        check_pickled(sharded(scene.folder / "bad", Bomb(scene.canary)))
    metadata = (good / ".metadata").read_bytes()
    for changed in (metadata.replace(b"__0_0.distcp", b"../../x.evil"), metadata[: len(metadata) // 2]):
        (good / ".metadata").write_bytes(changed)
        with pytest.raises(TrustError, match="is not opened"):
            check_pickled(good)
    (good / ".metadata").write_bytes(metadata)
    scene.pickled(good / "meta.pt")
    with pytest.raises(TrustError, match=r"no checkpoint that torch\.save wrote"):
        check_pickled(good)


def test_what_the_user_trusts_is_imported_and_said(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.change_config(dotted)
    with caplog.at_level("WARNING"):
        model = PEAV.from_pretrained(scene.model, trust=True)
    assert type(model.encoders["audio"]).__name__ == "Evil"
    assert "importing evil_encoders" in caplog.text and str(scene.model) in caplog.text
    assert scene.canary.read_text() == "ran"
    scene.canary.unlink()
    with pytest.raises(TrustError):
        PEAV.from_pretrained(scene.model)


def test_a_module_that_is_not_there_is_a_sentence(scene: Scene) -> None:
    scene.change_config(lambda config: encoder(config).update(class_path="nowhere_to_be_found.Mine"))
    with pytest.raises(TrustError, match="cannot be imported"):
        PEAV.from_pretrained(scene.model, trust=True)
    with pytest.raises(CheckpointError, match="there is no folder"):
        PEAV.from_pretrained("/nowhere/at/all", trust=True)


def test_load_from_checkpoint_reads_no_pickle(scene: Scene) -> None:
    with pytest.raises(ValueError, match="weights_only=False"):
        PeavModule.load_from_checkpoint(scene.checkpoint, weights_only=False)
    save(module(), scene.checkpoint)
    pickle_inside(scene)
    with pytest.raises(TrustError):
        PeavModule.load_from_checkpoint(scene.checkpoint)
