"""Pretrained text and frame models: trained as any, and nothing that is saved needs where they came from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from peav.cli.main import main
from peav.encoders import Encoder, FrameVideoEncoder, PEVideoEncoder, TextEncoder
from peav.model import PEAV
from peav.objectives import CaptionPair
from peav.testing import check_encoder, tiny_batch
from peav.training import PeavModule
from tests.helpers import PE_OPTIONS, small_encoders, small_tokenizer
from tests.training.test_module import fit

ROOT = Path(__file__).parents[2]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.5},
    "modernbert": {"mlp_dropout": 0.5, "cls_token_id": 2, "sep_token_id": 3},
}


def text_model(folder: Path, kind: str, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Path:
    """Writes a small transformers model by transformers itself."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{"vocab_size": 60, **SIZE, **SPECIAL, **DROPOUT.get(kind, {}), **options})
    AutoModel.from_config(config).to(dtype).save_pretrained(folder / kind)
    return folder / kind


def pooled(encoder: TextEncoder, seed: int = 0) -> Tensor:
    ids = torch.arange(4, 34).view(3, 10)
    torch.manual_seed(seed)
    return encoder._pool(ids, torch.ones_like(ids) > 0)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_pretrained_text_model_trains_in_fp32_with_its_dropout(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = text_model(tmp_path, kind, dtype)
    encoder = TextEncoder(small_tokenizer(), pretrained=str(folder))
    assert all(module.training for module in encoder.modules())
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert not torch.equal(pooled(encoder, 0), pooled(encoder, 1))
    encoder.eval()
    assert torch.equal(pooled(encoder, 0), pooled(encoder, 1))
    weights = load_file(folder / "model.safetensors")
    for name, tensor in encoder.model.state_dict().items():
        if name in weights:
            assert torch.equal(tensor, weights[name].float()), name


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_activations_are_computed_again_where_that_is_asked_for(kind: str, tmp_path: Path) -> None:
    folder = text_model(tmp_path, kind, hidden_dropout_prob=0.0, mlp_dropout=0.0)
    calls, gradients = [], []
    for again in (False, True):
        encoder = TextEncoder(small_tokenizer(), pretrained=str(folder), activation_checkpointing=again)
        seen: list[int] = []
        inside = next(part for part in encoder.stacks()[0].layers[0].modules() if isinstance(part, nn.Linear))
        inside.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        pooled(encoder).square().sum().backward()
        calls.append(len(seen))
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert calls == [1, 2] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "roberta", "albert", "mpnet", "deberta-v2", "longformer"])
def test_every_parameter_that_is_trained_gets_a_gradient(kind: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"bert": {"hidden_dropout_prob": 0.0}, "modernbert": {"mlp_dropout": 0.0}}.get(kind, {})
    if kind == "longformer":
        sizes = {"attention_window": 8}
    folder = text_model(tmp_path, kind, torch.float32, **sizes)

    def make(**options: Any) -> Callable[[], Encoder]:
        return lambda: TextEncoder(small_tokenizer(), **options).eval()

    check_encoder(make(pretrained=str(folder)), atol=1e-4)
    small = {"vocab_size": 60, **SIZE, **sizes}
    check_encoder(make(architecture=kind, options=small), atol=1e-4)


def test_what_would_change_nothing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = str(text_model(tmp_path, "bert"))
    for given in ({"options": {"hidden_size": 8}}, {"architecture": "bert"}, {"architecture": "modernbert"}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} would change nothing of the pretrained model"):
            TextEncoder(small_tokenizer(), pretrained=folder, **given)
    few = str(text_model(tmp_path / "few", "bert", vocab_size=9))
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, but the pretrained model .* knows 9"):
        TextEncoder(small_tokenizer(), pretrained=few)
    weights = load_file(tmp_path / "bert/model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layer.1." not in name and "pooler" not in name}
    save_file(kept, tmp_path / "bert/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 16 tensors of a bert: encoder\.layer\.1\."):
        TextEncoder(small_tokenizer(), pretrained=folder)
    TextEncoder(small_tokenizer(), pretrained=folder, layer=1)  # a pooler is not read


def frame_model(folder: Path, name: str, **options: Any) -> Path:
    """Writes a small timm model by timm itself, as the hub keeps it."""
    torch.manual_seed(4)
    model = timm.create_model(name, num_classes=5, **options)
    save_for_hf(model, str(folder / "timm"), safe_serialization=True)
    return folder / "timm"


def encoders(kind: str, folder: Path) -> dict[str, Encoder]:
    """Encoders of which one began with a model under a folder."""
    found = small_encoders()
    if kind in ("bert", "modernbert"):
        found["text"] = TextEncoder(small_tokenizer(), pretrained=str(text_model(folder, kind)), pooling="mean")
    elif kind == "layer":
        found["text"] = TextEncoder(small_tokenizer(), pretrained=str(text_model(folder, "modernbert")), layer=1)
    elif kind == "vit":
        small = {
            "embed_dim": 16,
            "depth": 1,
            "num_heads": 2,
            "img_size": 32,
            "class_token": False,
            "global_pool": "avg",
        }
        where = frame_model(folder, "vit_tiny_patch16_224", **small)
        found["video"] = FrameVideoEncoder(16, 1, 2, frame_model=f"local-dir:{where}", pretrained=True)
    else:
        where = frame_model(folder, "vit_pe_core_tiny_patch16_384", **PE_OPTIONS)
        found["video"] = PEVideoEncoder(
            16, 1, 2, frame_model=f"local-dir:{where}", frame_dim=12, trainable_frame_layers=1, pretrained=True
        )
    return found


@pytest.mark.parametrize("kind", ["bert", "modernbert", "layer", "vit", "pe"])
def test_what_is_saved_loads_when_the_folder_is_gone(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    chosen: Any = {"audio": CaptionPair("audio", "audio"), "video": CaptionPair("video", "video")}
    module = PeavModule(encoders(kind, source), chosen, embedding_dim=8, learning_rate=1e-2, warmup_steps=0)
    trainer = fit(module, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    shutil.rmtree(source)
    module.eval()
    batch = tiny_batch(4)
    with torch.no_grad():
        expected = module.model.embed_batch(batch)
    assert main(["convert", str(tmp_path / "trained.ckpt"), str(tmp_path / "converted")]) == 0
    assert str(source) not in (tmp_path / "converted/config.json").read_text()
    PEAV.from_pretrained(tmp_path / "trained.ckpt").save_pretrained(tmp_path / "exported")
    read: list[Any] = [PEAV.from_pretrained(tmp_path / name) for name in ("trained.ckpt", "converted", "exported")]
    read.append(PeavModule.load_from_checkpoint(tmp_path / "trained.ckpt").eval().model)
    read.append(PeavModule(objectives=chosen, init_from=str(tmp_path / "converted")).eval().model)
    for model in read:
        with torch.no_grad():
            found = model.embed_batch(batch)
        for name, embedding in expected.items():
            torch.testing.assert_close(found[name].pooled, embedding.pooled, rtol=1e-6, atol=1e-6)


def config_with(data: Path, folder: Path, kind: str) -> Path:
    """tiny_cpu.yaml with a pretrained text model."""
    size = len(json.loads((data / "tokenizer.json").read_text())["model"]["vocab"])
    source = text_model(folder, kind, vocab_size=size)
    config = yaml.safe_load((ROOT / "experiments/tiny_cpu.yaml").read_text())
    init_args = {"tokenizer": str(data / "tokenizer.json"), "pretrained": str(source), "pooling": "mean"}
    config["model"]["encoders"]["text"]["init_args"] = init_args
    config["model"]["encoders"]["plus_text"]["init_args"]["text_dim"] = 16
    config["data"]["data"] = str(data)
    config["trainer"] |= {"max_steps": 2, "limit_val_batches": 0, "default_root_dir": str(folder / "run")}
    path = folder / "pretrained.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_peav_fit_on_two_ranks_and_all_that_follows(kind: str, world: Path, tmp_path: Path) -> None:
    """In fresh processes: DDP waits for no parameter, and the model is converted and embeds when the folder is gone."""

    def peav(*arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "WORLD_SIZE")}
        command = [sys.executable, "-m", "peav.cli.main", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    config = config_with(world, tmp_path, kind)
    peav("fit", "--config", str(config), "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=8")
    shutil.rmtree(tmp_path / kind)
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    peav("convert", str(checkpoint), str(tmp_path / "converted"))
    (tmp_path / "texts.txt").write_text("a bell rings\na red square\n")
    texts = ("--text", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "embedded.npz"))
    peav("embed", "--model", str(tmp_path / "converted"), *texts)
    peav("evaluate", str(checkpoint), str(world), "--out", str(tmp_path / "report"))
