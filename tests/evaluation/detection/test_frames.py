from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from peav.evaluation.detection import event_labels, frame_auroc, frame_labels, rank_auroc


def loop_labels(onset, offset, num_frames, hop):
    return [t * hop < offset and (t + 1) * hop > onset for t in range(num_frames)]


def test_frame_labels_equal_overlap_frame_by_frame():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        onset, length = (torch.rand(2, generator=g).double() * torch.tensor([9.0, 3.0])).tolist()
        found = frame_labels(onset, onset + length, 200, 0.04).tolist()
        assert found == loop_labels(onset, onset + length, 200, 0.04)


@pytest.mark.parametrize("frame", [3, 7, 29, 75, 249])
def test_an_event_on_the_grid_takes_exactly_its_frames_despite_rounding(frame):
    for dtype in (torch.float32, torch.float64):
        onset, offset = (float(torch.tensor(f, dtype=dtype) * 0.04) for f in (frame, frame + 5))
        assert torch.nonzero(frame_labels(onset, offset, 300, 0.04)).flatten().tolist() == list(range(frame, frame + 5))


def test_frame_labels_clamp_and_refuse():
    assert frame_labels(-1.0, 0.04, 4, 0.04).tolist() == [True, False, False, False]
    assert frame_labels(0.1, 99.0, 4, 0.04).tolist() == [False, False, True, True]
    assert not frame_labels(-2.0, -1.0, 4, 0.04).any() and not frame_labels(5.0, 6.0, 4, 0.04).any()
    with pytest.raises(ValueError, match="cannot run"):
        frame_labels(2.0, 1.0, 4, 0.04)
    with pytest.raises(ValueError, match="frame_seconds"):
        frame_labels(0.0, 1.0, 4, 0.0)


def test_event_labels_unite_the_events_of_a_phrase():
    events = [[("a", 0.0, 0.04), ("a", 0.08, 0.12), ("b", 0.0, 0.2)], [], None]
    labels = event_labels(events, ["a", "b"], 5, 0.04)
    assert labels.int().tolist() == [[[1, 0, 1, 0, 0], [1, 1, 1, 1, 1]], [[0] * 5] * 2, [[0] * 5] * 2]


@pytest.mark.parametrize("levels", [None, 2, 5])
def test_rank_auroc_equals_torchmetrics_and_a_loop(levels):
    g = torch.Generator().manual_seed(1)
    scores = torch.rand(400, generator=g) if levels is None else torch.randint(levels, (400,), generator=g) / levels
    labels = torch.rand(400, generator=g) < 0.2 + 0.3 * scores
    positives, negatives = scores[labels], scores[~labels]
    pairs = [(p > n) + 0.5 * (p == n) for p in positives.tolist() for n in negatives.tolist()]
    found = rank_auroc(positives, negatives)
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert found == pytest.approx(float(binary_auroc(scores, labels.long())), abs=1e-6)


def test_rank_auroc_at_its_ends():
    high, low = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
    assert rank_auroc(high, low) == 1 and rank_auroc(low, high) == 0 and rank_auroc(low, low) == 0.5
    assert rank_auroc(high, low[:0]) is None and rank_auroc(high[:0], low) is None


def test_frame_auroc_pools_valid_frames_and_skips_texts_of_one_class():
    g = torch.Generator().manual_seed(2)
    scores = torch.randn(6, 4, 30, generator=g)
    labels = torch.rand(6, 4, 30, generator=g) < 0.3
    labels[:, 2] = False
    mask = torch.arange(30) < torch.tensor([30, 12, 0, 25, 7, 30])[:, None]
    found = frame_auroc(scores, labels, mask)
    expected: list = []
    for k in range(4):
        pooled = [(scores[a, k, t], labels[a, k, t]) for a in range(6) for t in range(30) if mask[a, t]]
        s, y = (torch.stack(part) for part in zip(*pooled, strict=True))
        expected.append(float(binary_auroc(s, y.long())) if y.any() else None)
    assert found.per_text[2] is None
    assert [v for k, v in enumerate(found.per_text) if k != 2] == pytest.approx(
        [expected[k] for k in (0, 1, 3)], abs=1e-6
    )
    assert found.macro == pytest.approx(sum(expected[k] for k in (0, 1, 3)) / 3, abs=1e-6)
    valid = mask[:, None].expand_as(labels)
    assert found.micro == pytest.approx(float(binary_auroc(scores[valid], labels[valid].long())), abs=1e-6)
    assert found.num_frames == int(mask.sum()) and found.num_positive[2] == 0
    spoiled = torch.where(valid, scores, torch.nan)
    assert frame_auroc(spoiled, labels | ~valid, mask) == found


def test_frame_auroc_refuses_bad_input():
    scores, labels, mask = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4).bool(), torch.ones(2, 4).bool()
    with pytest.raises(ValueError, match="expected scores"):
        frame_auroc(scores, labels, mask[:, :3])
    with pytest.raises(ValueError, match="bool"):
        frame_auroc(scores, labels.float(), mask)
    with pytest.raises(ValueError, match="NaN"):
        frame_auroc(scores / 0, labels, mask)
    nothing = frame_auroc(scores, labels, mask)
    assert nothing.macro is None and nothing.micro is None
