"""BEST-RQ: spans are hidden, codes do not depend on what is hidden, and an encoder learns to guess them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from peav.encoders import MelAudioEncoder
from peav.masking import SpanMasking, lengths_to_mask
from peav.objectives import BestRQ, CaptionPair
from peav.testing import tiny_batch, tiny_embeddings
from peav.training import PeavModule
from tests.helpers import small_encoders


def test_spans_hide_so_much_and_nothing_else() -> None:
    torch.manual_seed(0)
    mask = lengths_to_mask(torch.tensor([4000, 100_000, 0]), 100_000)
    values = torch.randn(3, 100_000, 4) + 5
    seen, hidden = SpanMasking(rate=0.02, span=10, noise=0.1).hide(values, mask)
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
