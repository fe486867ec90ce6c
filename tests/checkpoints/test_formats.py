"""Reading and writing: round trips lose nothing, and what is no checkpoint is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peav.checkpoints import CheckpointError, MediaSettings, ModelSpec
from peav.checkpoints.files import read_weights
from peav.checkpoints.presets import PARAMETERS, PRESETS, preset
from peav.cli.main import main
from peav.encoders import TextEncoder
from peav.model import PEAV
from peav.testing import tiny_batch
from tests.helpers import small_encoders, small_tokenizer

FOLDER = Path(__file__).parents[1] / "assets/pe_av_tiny"


def same_state(a: PEAV, b: PEAV) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def released_like(seed: int = 0, frame_level: bool = False) -> PEAV:
    """A random tiny model whose embeddings have the text's width, as transformers' classes want; nothing at its initial value."""
    torch.manual_seed(seed)
    spec = PEAV.from_pretrained(FOLDER / ("pe_a_frame" if frame_level else "pe_av")).spec
    encoders = {name: dict(config) for name, config in spec.encoders.items()}
    text = dict(encoders["text"]["init_args"])
    tokenizer = small_tokenizer()
    encoders["text"]["init_args"] = {**text, "tokenizer": tokenizer}
    pairs = preset("pe-a-frame-small" if frame_level else "pe-av-small").pairs
    dim = text["options"]["hidden_size"]
    media = replace(spec.known_media, num_frames=None if frame_level else 16)
    model = PEAV.from_spec(replace(spec, encoders=encoders, embedding_dim=dim, pairs=pairs, media=media))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Meta's frame encoder has no bias in its head.
            if not name.endswith("frontend.model.head.bias"):
                centre = 1 if name.endswith(("norm.weight", ".scale")) else 0
                parameter.copy_(torch.randn_like(parameter) * 0.1 + centre)
    return model.eval()


@pytest.mark.parametrize("name", ["pe_av", "pe_a_frame"])
def test_metas_format_comes_out_as_it_went_in(name: str, tmp_path: Path) -> None:
    model = PEAV.from_pretrained(FOLDER / name)
    model.save_pretrained(tmp_path / "peav")
    again = PEAV.from_pretrained(tmp_path / "peav")
    assert same_state(model, again)
    again.save_pretrained(tmp_path / "meta", "meta")
    expected, found = read_weights(FOLDER / name)[0], read_weights(tmp_path / "meta")[0]
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert same_state(model, PEAV.from_pretrained(tmp_path / "meta"))
    wanted, written = (
        json.loads((folder / "config.json").read_text()) for folder in (FOLDER / name, tmp_path / "meta")
    )
    assert written["nth_text_layer"] == wanted["nth_text_layer"] and written["output_dim"] == wanted["output_dim"]
    assert wanted["text_model"].items() <= written["text_model"].items()
    assert written.get("pe_vision") == wanted.get("pe_vision")


@pytest.mark.parametrize("frame_level", [False, True])
def test_round_trips_are_bit_equal(frame_level: bool, tmp_path: Path) -> None:
    """meta -> peav -> transformers -> peav, and back to meta."""
    released_like(frame_level=frame_level).save_pretrained(tmp_path / "meta", "meta")
    model = PEAV.from_pretrained(tmp_path / "meta")
    model.save_pretrained(tmp_path / "peav")
    PEAV.from_pretrained(tmp_path / "peav").save_pretrained(tmp_path / "transformers", "transformers")
    last = PEAV.from_pretrained(tmp_path / "transformers")
    assert same_state(model, last)
    assert last.pairs == model.pairs and last.media == model.media
    last.save_pretrained(tmp_path / "again", "meta")
    expected, found = load_file(tmp_path / "meta/model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)
    text = last.encoders["text"]
    assert isinstance(text, TextEncoder) and text.tokenize is not None
    assert text.tokenize(["a bell rings"])[1].all()


def test_scales_survive_transformers_format_and_are_reported_where_they_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = released_like()
    assert len(model.pairs) == 6 and len(model.missing_pairs) == 4
    model.save_pretrained(tmp_path / "transformers", "transformers")
    again = PEAV.from_pretrained(tmp_path / "transformers")
    for pair in model.pairs:
        assert all(torch.equal(a, b) for a, b in zip(model.score(pair), again.score(pair), strict=True))
    model.save_pretrained(tmp_path / "meta", "meta")
    with caplog.at_level("INFO"):
        without = PEAV.from_pretrained(tmp_path / "meta")
    assert without.pairs == () and len(without.missing_pairs) == 10
    assert "audio x text_audio" in caplog.text
    with pytest.raises(KeyError, match="no scale and bias for audio x video"):
        without.score(("audio", "video"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_numbers_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = PEAV.from_spec(preset(name))
    if name.startswith("pe-av"):
        size = name.split("-")[2]
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[size]
        assert model.media.num_frames == (16 if name.endswith("16-frame") else None)
    else:
        assert set(model.heads) == {"audio", "text_event"}


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(CheckpointError, match="'pe-av-huge'; they are pe-av-small"):
        preset("pe-av-huge")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return released_like().save_pretrained(tmp_path / "model", "meta")


def rewrite(folder: Path, change: dict[str, Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in change.items():
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors")


def test_what_is_missing_unexpected_or_misshapen_is_listed(folder: Path) -> None:
    rewrite(folder, {"audio_head.proj.weight": None, "audio_head.projection.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 tensors missing: audio_head\.proj\.weight.*audio_head\.projection"):
        PEAV.from_pretrained(folder)


def test_an_unexpected_tensor_is_refused(folder: Path) -> None:
    rewrite(folder, {"smell_head.proj.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"1 tensors unexpected: smell_head\.proj\.weight"):
        PEAV.from_pretrained(folder)


def test_a_misshapen_tensor_is_refused(folder: Path) -> None:
    rewrite(folder, {"audio_head.proj.weight": torch.zeros(3, 5)})
    with pytest.raises(CheckpointError, match=r"of another shape: heads\.audio\.proj\.weight is \(3, 5\), not"):
        PEAV.from_pretrained(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        PEAV.from_pretrained(folder)


def test_a_pickle_is_refused_whatever_its_name(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        PEAV.from_pretrained(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin would have to be unpickled"):
        PEAV.from_pretrained(folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(folder: Path, share: float) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        PEAV.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "bert", "hidden_size": 3}', "a model of another kind: its config.json says bert"),
        ('{"a": 1}', "an object with a"),
        ("[]", "holds a list, not an object"),
        ("{", "is not JSON"),
        ('{"audio_model": {}, "text_model": {"model_type": "bert"}}', "the text model is a 'bert'"),
        ('{"model_type": "pe_audio", "architectures": ["PeAudioModel"]}', "peav reads PeAudioFrameLevelModel"),
        ('{"format": "peav", "version": 99}', "version 99"),
    ],
)
def test_a_config_of_another_model(folder: Path, config: str, message: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        PEAV.from_pretrained(folder)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for place, message in (
        (tmp_path / "empty", r"holds no config\.json"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "nowhere", "there is no folder"),
        ("nowhere", "OWNER/NAME"),
        ("", "is empty"),
        (tmp_path / "last.ckpt", "there is no checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=message):
            PEAV.from_pretrained(place)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "pe_av", tmp_path / "model")
    (tmp_path / "model/model-00002-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lists model-00002-of-00004\.safetensors, which are not there"):
        PEAV.from_pretrained(tmp_path / "model")


def test_any_model_goes_through_peavs_own_format(tmp_path: Path) -> None:
    model = PEAV(
        small_encoders(),
        embedding_dim=8,
        normalize=False,
        frames=["audio"],
        pairs=[("audio", "video")],
        media=MediaSettings(16000, 8),
    ).eval()
    model.set_score(("audio", "video"), torch.tensor([3.5]), torch.tensor([-2.0]))
    again = PEAV.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert same_state(model, again) and again.spec == model.spec
    with torch.no_grad():
        expected, found = model.embed_batch(tiny_batch()), again.embed_batch(tiny_batch())
    assert all(torch.equal(found[name].pooled, expected[name].pooled) for name in expected)
    (tmp_path / "model/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks its tokenizer\.json"):
        PEAV.from_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"either the eight embeddings .* this model has audio, .*text_event"):
        model.save_pretrained(tmp_path / "other", "meta")


def test_a_folder_is_replaced_and_not_mixed(tmp_path: Path) -> None:
    golden, other = PEAV.from_pretrained(FOLDER / "pe_av"), released_like()
    golden.save_pretrained(tmp_path)  # unused tensors, no tokenizer
    other.save_pretrained(tmp_path, "transformers")  # no unused tensors, a tokenizer and processors
    assert PEAV.from_pretrained(tmp_path).unused == {}
    golden.save_pretrained(tmp_path)
    again = PEAV.from_pretrained(tmp_path)
    assert same_state(golden, again) and set(again.unused) == set(golden.unused)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "unused.safetensors",
    ]
    again.save_pretrained(tmp_path)  # onto itself
    assert same_state(golden, PEAV.from_pretrained(tmp_path))
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # weights can be read by whoever can read their configuration


def test_formats_refuse_what_they_cannot_hold(tmp_path: Path) -> None:
    model = PEAV.from_pretrained(FOLDER / "pe_av")
    with pytest.raises(CheckpointError, match="the text's width, 32, but this model's have 40"):
        model.save_pretrained(tmp_path, "transformers")
    changed = PEAV.from_spec(replace(model.spec, normalize=True))
    for target in ("meta", "transformers"):
        with pytest.raises(CheckpointError, match="unit length"):
            changed.save_pretrained(tmp_path, target)
    with pytest.raises(ValueError, match="must be 'peav', 'meta' or 'transformers'"):
        model.save_pretrained(tmp_path, "onnx")  # type: ignore[arg-type]
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if n.endswith("frontend.model.head.bias")).fill_(1)
    with pytest.raises(CheckpointError, match="no bias in the frame encoder's head"):
        model.save_pretrained(tmp_path, "meta")


def test_convert_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = released_like().save_pretrained(tmp_path / "meta", "meta")
    assert main(["convert", str(source), str(tmp_path / "out"), "--to", "transformers"]) == 0
    assert same_state(PEAV.from_pretrained(source), PEAV.from_pretrained(tmp_path / "out"))
    assert "no scale and bias are known for audio x text_audio" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--to", "peav"]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_the_specification_survives_json() -> None:
    spec = preset("pe-av-small-16-frame")
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(CheckpointError, match="not one that this version"):
        ModelSpec.from_dict({"encoders": {}})
    assert MediaSettings().sample_rate == 48000
