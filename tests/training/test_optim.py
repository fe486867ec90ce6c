"""What decays: matrices and kernels, and nothing else, in our encoders, timm's, transformers' and third-party modules."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from peav.objectives import Objective
from peav.training.optim import parameter_groups
from tests.helpers import SMALL_ENCODERS, SMALL_OBJECTIVES

#: Modules of torch whose weights are matrices or kernels.
MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)


def decaying(*modules: nn.Module) -> set[int]:
    """The parameters that decay; every trainable one is in one group."""
    groups: list[Any] = parameter_groups(modules, 0.1)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted({id(p) for m in modules for p in m.parameters() if p.requires_grad})
    return {id(p) for group in groups if group["weight_decay"] for p in group["params"]}


def check(module: nn.Module, exempt: tuple[str, ...] = ()) -> list[str]:
    """Checks that what decays are weights of linear maps and convolutions; returns the other tensors of two dimensions or more."""
    found, rest = decaying(module), []
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            whole = f"{prefix}.{name}".lstrip(".")
            matrix = isinstance(part, MULTIPLYING) and name == "weight" and not any(word in whole for word in exempt)
            assert (id(parameter) in found) == matrix, whole
            if parameter.ndim > 1 and not matrix:
                rest.append(whole)
    return rest


@pytest.mark.parametrize("name", SMALL_ENCODERS)
def test_our_encoders(name: str) -> None:
    # PE's frame encoder is frozen; the same architecture is trained below.
    assert set(check(SMALL_ENCODERS[name]())) <= {"model.embeddings.tok_embeddings.weight"}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("vit_tiny_patch16_224", {"cls_token", "pos_embed"}),
        ("vit_pe_core_tiny_patch16_384", {"cls_token", "pos_embed", "attn_pool.latent"}),
        ("vit_small_patch14_reg4_dinov2", {"cls_token", "pos_embed", "reg_token"}),
        ("deit_tiny_distilled_patch16_224", {"cls_token", "pos_embed", "dist_token"}),
        ("swin_tiny_patch4_window7_224", {"attn.relative_position_bias_table"}),
        ("xcit_nano_12_p16_224", {"cls_token", "attn.temperature"}),
        ("mvitv2_tiny", {"attn.rel_pos_h", "attn.rel_pos_w"}),
        ("tiny_vit_5m_224", {"attn.attention_biases"}),
        ("convnext_atto", set()),
    ],
)
def test_timms_models(name: str, kept: set[str]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    assert {".".join(name.split(".")[-2:]) for name in check(model)} == kept


def test_what_timms_models_ask_to_spare_does_not_decay() -> None:
    with torch.device("meta"):
        model = timm.create_model("swinv2_tiny_window8_256", num_classes=0)
    rest = check(model, exempt=("cpb_mlp",))  # linear maps that make biases, which Swin's authors spare by keyword
    assert {name.rsplit(".", 1)[1] for name in rest} == {"logit_scale", "weight"}


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "deberta-v2", "electra"])
def test_transformers_models(kind: str) -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=40, **size, **special))
    assert all("embeddings" in name for name in check(model))


class Foreign(nn.Module):
    """What a stranger's encoder may be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=6, vdim=6)
        self.recurrent = nn.GRU(4, 4)
        self.wave = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 5))
        self.grid_norm = nn.LayerNorm([3, 4])
        self.table = nn.EmbeddingBag(7, 4)
        self.tied = nn.Linear(4, 9, bias=False)
        self.words = nn.Embedding(9, 4)
        self.tied.weight = self.words.weight
        self.in_weight = nn.Parameter(torch.ones(3, 4))
        self.proj = nn.Parameter(torch.ones(3, 4))
        self.queries = nn.Parameter(torch.ones(3, 4))
        self.position = nn.Parameter(torch.ones(1, 3, 4))
        self.spared = nn.Linear(2, 2)

    def no_weight_decay(self) -> set[str]:
        return {"spared.weight"}


def test_a_strangers_modules() -> None:
    module = Foreign()
    found = decaying(module)
    assert {name for name, p in module.named_parameters() if id(p) in found} == {
        *(f"attention.{kind}_proj_weight" for kind in "qkv"),
        *("attention.out_proj.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0"),
        *("wave.parametrizations.weight.original1", "in_weight", "proj"),
    }


@pytest.mark.parametrize("name", SMALL_OBJECTIVES)
def test_nothing_that_objectives_own_decays(name: str) -> None:
    objective = SMALL_OBJECTIVES[name]()
    assert isinstance(objective, Objective) and list(objective.parameters())
    assert not decaying(nn.ModuleDict({"mine": objective}))
