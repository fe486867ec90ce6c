"""BEST-RQ: spans are hidden, codes do not depend on what is hidden, and an encoder learns to guess them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from peav.encoders import Encoder, MelAudioEncoder
from peav.masking import SpanMasking, lengths_to_mask
from peav.objectives import BestRQ, CaptionPair
from peav.testing import GlooPool, tiny_batch, tiny_embeddings
from peav.training import PeavModule
from peav.training.assembly import hide_spans
from peav.types import AudioInput, Batch
from tests.helpers import SMALL_ENCODERS, small_encoders
from tests.training.test_virtual import Chunks, cut


def test_spans_hide_so_much_and_nothing_else() -> None:
    mask = lengths_to_mask(torch.tensor([4000, 100_000, 0]), 100_000)
    values = torch.randn(3, 100_000, 4) + 5
    seen, hidden = SpanMasking(rate=0.02, span=10, noise=0.1).hide(values, mask, torch.arange(3))
    assert not hidden[~mask].any()
    assert torch.equal(seen[~hidden], values[~hidden])
    assert seen[hidden].std() == pytest.approx(0.1, rel=0.1)
    # A frame is hidden unless none of the ten places where its span could begin begins one.
    assert float(hidden.sum() / mask.sum()) == pytest.approx(1 - 0.98**10, abs=0.01)
    runs = F.pad(hidden[1].int(), (1, 1)).diff()
    lengths = (runs == -1).nonzero() - (runs == 1).nonzero()
    assert int(lengths[:-1].min()) >= 10
    with pytest.raises(ValueError, match="0 < rate < 1"):
        SpanMasking(rate=0)


def test_labels_are_the_nearest_codes() -> None:
    objective = BestRQ(input_dim=6, dim=4, num_codes=11, code_dim=3)
    inputs = torch.randn(7, 6)
    normal = (inputs - inputs.mean(1, keepdim=True)) / (inputs.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    projected = normal @ objective.projection
    distances = torch.cdist(projected / projected.norm(dim=1, keepdim=True), objective.codebook)
    assert torch.equal(objective.labels(inputs), distances.argmin(1))
    twin = BestRQ(input_dim=6, dim=4, num_codes=11, code_dim=3)
    assert torch.equal(twin.codebook, objective.codebook)
    assert not torch.equal(BestRQ(6, 4, 11, 3, seed=1).codebook, objective.codebook)
    assert {"projection", "codebook"} <= set(objective.state_dict())


def test_only_hidden_frames_count_and_widths_are_named() -> None:
    objective = BestRQ(input_dim=12, dim=8, num_codes=20, code_dim=4).double()
    (embedding,) = tiny_embeddings(objective).values()
    assert embedding.hidden is not None and embedding.frames is not None and embedding.inputs is not None
    output = objective({"features.audio": embedding}, {})
    where = embedding.hidden
    expected = F.cross_entropy(objective.predictor(embedding.frames[where]), objective.labels(embedding.inputs[where]))
    torch.testing.assert_close(output.loss, expected)
    assert int(output.count) == int(where.sum())
    with pytest.raises(ValueError, match="input_dim=6, but the audio encoder's is 12: set input_dim=12"):
        BestRQ(input_dim=6, dim=8).double()({"features.audio": embedding}, {})
    nothing = replace(embedding, inputs=None, hidden=None)
    assert float(objective({"features.audio": nothing}, {}).loss) == 0


def test_the_module_hides_spans_in_training_alone() -> None:
    torch.manual_seed(0)
    encoders = small_encoders()
    audio = encoders["audio"]
    assert isinstance(audio, MelAudioEncoder)
    best_rq = BestRQ(audio.frontend.dim, audio.dims["audio"], num_codes=16, mask_rate=0.2, mask_span=3)
    module = PeavModule(encoders, {"audio": CaptionPair("audio", "audio"), "best_rq": best_rq}, embedding_dim=8)
    assert set(module.trained) == {"audio", "text_audio", "features.audio"} and set(module.model.heads) == {
        "audio",
        "text_audio",
    }
    made = module.model.embed_batch(tiny_batch(4), module.trained, module.frames)["features.audio"]
    assert made.hidden is not None and made.hidden.any() and made.inputs is not None
    module.eval()
    assert module.model.embed_batch(tiny_batch(4), module.trained, module.frames)["features.audio"].hidden is None
    with pytest.raises(ValueError, match="hides spans of 'audio' otherwise than another objective"):
        other = BestRQ(audio.frontend.dim, audio.dims["audio"], mask_span=4)
        PeavModule(small_encoders(), {"one": best_rq, "two": other}, embedding_dim=8)


def hidden_of(module: PeavModule, batch: Batch) -> tuple[Tensor, Tensor]:
    """Which frames are hidden in the step that was begun, and the labels that BestRQ gives all frames."""
    made = module.model.embed_batch(batch, module.trained, module.frames)["features.audio"]
    objective = module.objectives["best_rq"]
    assert made.hidden is not None and made.inputs is not None and isinstance(objective, BestRQ)
    return made.hidden, objective.labels(made.inputs)


def best_rq_module(audio: Encoder, dim: int, **options: Any) -> PeavModule:
    objectives = {"audio": CaptionPair("audio", "audio"), "best_rq": BestRQ(dim, audio.dims["audio"], 64, **options)}
    return PeavModule({"audio": audio, "text": small_encoders()["text"]}, objectives, embedding_dim=8)  # type: ignore[arg-type]


def test_labels_are_of_the_clean_input_whatever_the_encoder_does_not_see() -> None:
    def labels(**augment: Any) -> Tensor:
        torch.manual_seed(0)
        audio = MelAudioEncoder(dim=16, num_layers=1, num_heads=2, num_mels=16, **augment)
        batch = tiny_batch(6)
        assert isinstance(batch.audio, AudioInput)
        seeds = torch.arange(6)
        batch = replace(batch, audio=replace(batch.audio, seed=seeds))
        encoder_saw = []
        audio.proj.register_forward_pre_hook(lambda _, inputs: encoder_saw.append(inputs[0]))
        _, found = hidden_of(best_rq_module(audio, 32), batch)
        seen.append(encoder_saw[0])
        return found

    seen: list[Tensor] = []
    plain, augmented = labels(), labels(band_masks=2, max_bands=6, time_masks=2, max_time_share=0.4)
    assert torch.equal(plain, augmented) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("kind", ["MelAudioEncoder", "DacAudioEncoder"])
def test_spans_follow_from_clip_and_step_alone(kind: str) -> None:
    """They are those of the clip in any batch and pass, others in the next step, and leave every generator as it was."""
    audio = SMALL_ENCODERS[kind]()
    frontend: Any = audio.frontend
    module = best_rq_module(audio, frontend.dim, mask_rate=0.2, mask_span=2)
    whole, objectives = tiny_batch(8), dict(module._objectives())
    hide_spans(module.model, objectives, 3, module.seed)
    before = torch.get_rng_state()
    hidden, _ = hidden_of(module, whole)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    for part, rows in zip(cut(whole, 3), torch.arange(8).split(3), strict=True):
        again, _ = hidden_of(module, part)
        width = again.shape[1]
        assert torch.equal(again, hidden[rows, :width]) and not hidden[rows, width:].any()
    assert len({tuple(row.tolist()) for row in hidden}) > 4  # of eight clips of up to six frames
    for step, seed in ((4, module.seed), (3, module.seed + 1)):
        hide_spans(module.model, objectives, step, seed)
        assert not torch.equal(hidden_of(module, whole)[0], hidden)


class Hidden(Callback):
    """Keeps what is hidden in every forward pass of the audio encoder, by clip."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], list[list[bool]]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def keep(_: Any, inputs: Any, outputs: Any) -> None:
            feature = outputs["audio"]
            for group, row, valid in zip(feature.group.tolist(), feature.hidden, feature.mask, strict=True):
                self.found.setdefault((trainer.global_step, group), []).append(row[valid].tolist())

        encoders: Any = pl_module.model.encoders  # type: ignore[union-attr]
        encoders["audio"].register_forward_hook(keep)


def kept_spans(folder: Path, size: int, **options: Any) -> dict[tuple[int, int], list[list[bool]]]:
    torch.manual_seed(0)
    audio = MelAudioEncoder(dim=16, num_layers=1, num_heads=2, num_mels=16, dropout=0.1)
    module = best_rq_module(audio, 32, mask_rate=0.2, mask_span=2)
    if options.pop("virtual", False):
        objectives = {name: o for name, o in module._objectives()}
        module = PeavModule(dict(module.model.encoders), objectives, embedding_dim=8, virtual_batch_size=8)  # type: ignore[arg-type]
    kept = Hidden()
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[kept],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,
    )
    chunks = [chunk for seed in (0, 1) for chunk in cut(tiny_batch(8, seed=seed), size)]
    trainer.fit(module, datamodule=Chunks(chunks, size))
    return kept.found


def test_a_virtual_batch_hides_in_both_passes_what_a_real_one_hides(tmp_path: Path) -> None:
    real = kept_spans(tmp_path, 8)
    virtual = kept_spans(tmp_path, 2, virtual=True)
    assert len(real) == 16 and real.keys() == virtual.keys()
    for key, (row,) in real.items():
        assert len(virtual[key]) == 2 and virtual[key] == [row, row]


def spans_of_rank(rank: int) -> Tensor:
    torch.manual_seed(0)  # as seed_everything does on every rank
    audio = MelAudioEncoder(dim=16, num_layers=1, num_heads=2, num_mels=16)
    module = best_rq_module(audio, 32, mask_rate=0.2, mask_span=2)
    hide_spans(module.model, dict(module._objectives()), 5, module.seed)
    return hidden_of(module, cut(tiny_batch(8), 4)[rank])[0]


def test_ranks_hide_what_one_process_hides(gloo: GlooPool) -> None:
    whole, parts = torch.cat([spans_of_rank(0), spans_of_rank(1)]), gloo.run(spans_of_rank)
    assert torch.equal(whole, torch.cat(parts)) and not torch.equal(parts[0], parts[1])
