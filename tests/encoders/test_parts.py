"""Parts of the encoders against simpler ways of computing the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from peav.encoders import FrameVideoEncoder, MelAudioEncoder, TextEncoder
from peav.encoders.audio import MelFrontend, SpecAugment
from peav.encoders.audio_video import align_nearest
from peav.encoders.dac import DacVaeFrontend, similar_lengths
from peav.encoders.text import Tokenize, read_tokenizer
from peav.encoders.transformer import MaskedGroupNorm, Transformer, apply_rotary, rotary
from peav.keyed_random import combine_keys, normal_rows, uniform_rows
from peav.masking import lengths_to_mask
from peav.testing import tiny_batch
from peav.types import VideoInput
from tests.helpers import FRAME_OPTIONS, small_tokenizer


def test_alignment_is_torchs_nearest_clip_by_clip() -> None:
    frames = torch.randn(4, 9, 3)
    lengths, targets = torch.tensor([9, 4, 1, 6]), torch.tensor([5, 12, 7, 6])
    found = align_nearest(frames, lengths, targets, 12)
    for row, (length, target) in enumerate(zip(lengths.tolist(), targets.tolist(), strict=True)):
        expected = F.interpolate(frames[row : row + 1, :length].mT, size=target, mode="nearest").mT[0]
        torch.testing.assert_close(found[row, :target], expected, rtol=0, atol=0)


def test_alignment_rounds_as_torch_does() -> None:
    """Pairs of lengths for which integer division takes another neighbour than torch, among all the others."""
    for source in (7, 29, 49, 93, 120):
        targets = torch.arange(1, 300)
        frames = torch.arange(source, dtype=torch.float32).expand(len(targets), -1).unsqueeze(-1)
        found = align_nearest(frames, torch.full_like(targets, source), targets, 300)
        for row, target in enumerate(targets.tolist()):
            expected = F.interpolate(frames[row : row + 1].mT, size=target, mode="nearest").mT[0]
            assert torch.equal(found[row, :target], expected), (source, target)


def test_masked_group_norm_is_group_norm_on_what_is_valid() -> None:
    norm = MaskedGroupNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = norm(x, mask)
    expected = F.group_norm(x[1:, :3].mT, 1, norm.weight, norm.bias).mT
    torch.testing.assert_close(found[1:, :3], expected)
    assert not found[1, 3:].any()


def test_rotary_embeddings_rotate_interleaved_pairs_and_see_only_distance() -> None:
    q, k = torch.randn(2, 8)
    cosine, sine = rotary(20, 8, 20000.0, torch.device("cpu"), torch.float32)
    # position 1, first pair: angle 1 radian
    turned = apply_rotary(q[None].expand(20, -1), cosine, sine)
    c, s = torch.tensor(1.0).cos(), torch.tensor(1.0).sin()
    torch.testing.assert_close(turned[1, :2], torch.stack((q[0] * c - q[1] * s, q[0] * s + q[1] * c)))
    keys = apply_rotary(k[None].expand(20, -1), cosine, sine)
    torch.testing.assert_close(turned[5] @ keys[2], turned[15] @ keys[12], rtol=1e-4, atol=1e-5)


def test_frontend_frames_are_25_a_second_and_do_not_see_padding() -> None:
    frontend = MelFrontend(16000, 16)
    samples = torch.randn(1, 16000)
    tokens, mask = frontend(samples, torch.ones(1, 16000, dtype=torch.bool))
    assert tokens.shape == (1, 25, 32) and mask.all()
    padded = torch.cat((samples, torch.full((1, 7000), 9.0)), 1)
    longer, longer_mask = frontend(padded, torch.arange(23000)[None] < 16000)
    assert longer_mask.sum() == 25
    torch.testing.assert_close(longer[:, :25], tokens)


@pytest.mark.parametrize("length", [1, 48, 320, 639, 640, 641])
def test_very_short_sounds_give_a_token(length: int) -> None:
    tokens, mask = MelFrontend(16000, 16)(torch.randn(1, length), torch.ones(1, length, dtype=torch.bool))
    assert tokens.shape[1] == mask.sum() == -(-length // 640)
    assert tokens.isfinite().all()


def test_a_louder_tone_raises_the_band_of_its_frequency() -> None:
    frontend = MelFrontend(16000, 64)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    mask = torch.ones(1, 16000, dtype=torch.bool)
    bands = frontend(tone, mask)[0][0, 10, :64]
    centre = bands.argmax()
    assert bands[centre] > frontend(0.1 * tone, mask)[0][0, 10, centre]
    # slaney-normalised HTK bands from 0 to 8 kHz: 1 kHz lies in the lower half
    assert 15 < centre < 35


def test_wrong_rates_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 50"):
        MelFrontend(11025, 16)
    with pytest.raises(ValueError, match="num_heads=3 must divide dim=16"):
        Transformer(16, 1, 3)
    encoder = MelAudioEncoder(dim=16, num_layers=1, num_heads=2, num_mels=16, sample_rate=8000)
    with pytest.raises(ValueError, match=r"sample_rate=8000, but the data come at 16000 Hz"):
        encoder({"audio": tiny_batch().audio}, ["audio"])


def test_batch_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="batch normalisation"):
        FrameVideoEncoder(dim=16, num_layers=1, num_heads=2, frame_model="resnet10t")


def test_a_frame_encoder_computes_valid_frames_only() -> None:
    encoder = FrameVideoEncoder(
        dim=16, num_layers=1, num_heads=2, frame_model="convnext_atto", frame_options=FRAME_OPTIONS
    ).frame_encoder
    seen = []
    encoder.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    video = tiny_batch().video
    assert isinstance(video, VideoInput)
    encoder(video.frames, video.mask)
    assert seen == [int(video.mask.sum())]


def test_text_options_and_tokenizers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no option 'hidden_sise'\. Did you mean 'hidden_size'"):
        TextEncoder(small_tokenizer(), options={"hidden_sise": 16})
    with pytest.raises(ValueError, match="no architecture 'modernbird'"):
        TextEncoder(small_tokenizer(), architecture="modernbird")
    with pytest.raises(FileNotFoundError, match="peav prepare"):
        read_tokenizer(str(tmp_path / "tokenizer.json"))


def test_a_text_encoder_rebuilds_from_its_config_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(small_tokenizer())
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = TextEncoder(str(path), options=options)
    path.unlink()
    rebuilt = TextEncoder(**encoder.config["init_args"])
    assert rebuilt.tokenize is not None and encoder.tokenize is not None
    assert rebuilt.tokenize(["a bell rings"])[0].tolist() == encoder.tokenize(["a bell rings"])[0].tolist()


def test_long_texts_are_cut_and_keep_their_special_tokens() -> None:
    tokenize = Tokenize(small_tokenizer(), max_tokens=6, pad_id=0)
    ids, mask = tokenize(["a bell rings " * 10_000, "a"])
    assert ids.shape == (2, 6)
    assert ids[0, 0] == 2 and ids[0, -1] == 3
    assert mask.sum(1).tolist() == [6, 3]


def test_clips_of_mixed_lengths_share_passes_of_the_dac_and_are_encoded_as_if_alone() -> None:
    """Odd and even strides, one sample and whole hops: in one pass each clip gets what it gets alone."""
    for ratios in ((2, 4, 8, 5), (3, 5, 7), (1, 4)):
        frontend = DacVaeFrontend(16000, 4, ratios, 8).double()
        for parameter in frontend.parameters():
            torch.nn.init.normal_(parameter, std=0.05)  # biases too: they are what makes zeros something else
        lengths = torch.tensor([4000, 3999, 3790, 0, 3, 900, 3800])
        mask = lengths_to_mask(lengths)
        samples = torch.randn(mask.shape, dtype=torch.float64)
        assert sorted(len(group) for group in similar_lengths(lengths.tolist(), 10**6)) == [1, 1, 4]
        latents, valid = frontend(samples, mask)
        for row, length in enumerate(lengths.tolist()):
            count = -(-length // frontend.hop)
            assert int(valid[row].sum()) == count and not latents[row, count:].any()
            if length:
                alone, _ = frontend(samples[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
                torch.testing.assert_close(latents[row, :count], alone[0], rtol=1e-12, atol=1e-14)
        # However different the lengths are.
        steps = torch.tensor([30, 1, 2, 17]) * frontend.hop
        wave = torch.randn(4, 30 * frontend.hop, dtype=torch.float64) * lengths_to_mask(steps)
        together = frontend._encode(wave, steps)
        for row, length in enumerate(steps.tolist()):
            alone = frontend._encode(wave[row : row + 1, :length], steps[row : row + 1])[0]
            count = length // frontend.hop
            torch.testing.assert_close(together[row, :count], alone[:count], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", ["usual", "wider than there are", "no bands", "no spans"])
def test_spec_augment_is_torchaudios_with_numbers_of_its_own(case: str) -> None:
    bands, widest, spans, share = {
        "usual": (2, 6, 2, 0.3),
        "wider than there are": (1, 99, 1, 1.0),
        "no bands": (0, 6, 3, 0.2),
        "no spans": (3, 6, 0, 0.2),
    }[case]
    levels, lengths, seeds = torch.randn(40, 30, 16), torch.arange(40) % 31, torch.arange(40) * 7919
    mask = lengths_to_mask(lengths, 28)
    before = torch.get_rng_state()
    found = SpecAugment(bands, widest, spans, share)(levels, mask, seeds)
    assert torch.equal(torch.get_rng_state(), before)
    for row, length, seed, level in zip(found, mask.sum(1).tolist(), seeds, levels, strict=True):
        expected = level.clone()
        numbers = uniform_rows(seed[None], 2 * (bands + spans))[0].tolist()
        for index in range(bands + spans):
            size, most = (16, min(widest, 16)) if index < bands else (length, max(1, int(share * length)))
            width = numbers[2 * index] * most
            begin = int(numbers[2 * index + 1] * (size - width))
            place = slice(begin, begin + int(width))
            if length:
                expected[(slice(0, length), place) if index < bands else place] = level[:length].mean()
        torch.testing.assert_close(row, expected)


def test_numbers_by_key_are_even_normal_and_independent() -> None:
    keys = torch.cat((torch.arange(200), torch.arange(1, 201) * 2**40, -torch.arange(1, 101)))
    even, normal = uniform_rows(keys, 2001), normal_rows(keys, 2001)
    assert float(even.min()) >= 0 and float(even.max()) < 1
    counts = torch.histc(even, 100, 0, 1)
    assert float(((counts - counts.mean()).square() / counts.mean()).sum()) < 170  # chi-squared of 99: 1 in 10^5
    assert even.mean().item() == pytest.approx(0.5, abs=2e-3) and normal.mean().item() == pytest.approx(0, abs=5e-3)
    assert normal.std().item() == pytest.approx(1, abs=5e-3) and normal.pow(4).mean().item() == pytest.approx(
        3, abs=0.05
    )
    for numbers in (even, normal):
        assert float((torch.corrcoef(numbers) - torch.eye(len(keys))).abs().max()) < 0.13  # of 2001 numbers: 6 sigma
        assert float(torch.corrcoef(torch.stack((numbers[:, 1:].flatten(), numbers[:, :-1].flatten())))[0, 1]) < 0.005
    assert torch.equal(uniform_rows(keys[3:4], 5), even[3:4, :5]) and torch.equal(
        normal_rows(keys[3:4], 5), normal[3:4, :5]
    )
    other = uniform_rows(combine_keys(keys, 1), 2001)
    assert abs(float(torch.corrcoef(torch.stack((other.flatten(), even.flatten())))[0, 1])) < 0.005
