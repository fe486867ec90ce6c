"""The numbers against programs that share nothing with peav: the protocol written again from its description, and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from peav.evaluation import EmbeddingTable, evaluate_table
from peav.evaluation.classification import classification_metrics

KS = (1, 5, 10)


def recalls(scores: list[list[float]], right: list[list[bool]]) -> dict[int, float]:
    """R@k in the CLIP sense: a query counts when any right candidate is in the top k. Wrong ones of equal score stand before it."""
    found: dict[int, list[bool]] = {k: [] for k in KS}
    for row, good in zip(scores, right, strict=True):
        if not any(good):
            continue  # nothing could be found
        best = max(score for score, is_right in zip(row, good, strict=True) if is_right)
        before = sum(score >= best for score, is_right in zip(row, good, strict=True) if not is_right)
        for k in KS:
            found[k].append(before < k)
    return {k: sum(hits) / len(hits) for k, hits in found.items()}


def softened(scores: list[list[float]], c: float = 10.0) -> list[list[float]]:
    """s' = (c s) softmax(c s), the softmax over all queries of a candidate."""
    made = [[0.0] * len(scores[0]) for _ in scores]
    for column in range(len(scores[0])):
        powers = [math.exp(c * row[column]) for row in scores]
        total = math.fsum(powers)
        for line, power in enumerate(powers):
            made[line][column] = c * scores[line][column] * power / total
    return made


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 3])
def test_retrieval_equals_the_protocol_written_again(seed: int, levels: int | None) -> None:
    """Two to four captions a clip, some of them said of several clips; two clips with one sound; with `levels`, many ties."""
    rng = np.random.default_rng(seed)
    clips, dim = 40, 6
    audio = rng.standard_normal((clips, dim))
    audio[7] = audio[3]
    owner = [clip for clip in range(clips) for _ in range(int(rng.integers(2, 5)))]
    words = [f"caption {rng.integers(60)}" for _ in owner]
    meaning = {word: rng.standard_normal(dim) for word in sorted(set(words))}
    text = np.stack([meaning[word] + 0.5 * audio[words.index(word) % clips] for word in words])
    if levels is not None:
        audio, text = np.round(audio).clip(-1, 1), np.round(text).clip(-1, 1)
        for word in set(words):
            text[[place for place, one in enumerate(words) if one == word]] = text[words.index(word)]
    sound = [3 if clip == 7 else clip for clip in range(clips)]
    table = EmbeddingTable(
        clip_ids=[str(clip) for clip in range(clips)],
        embeddings={"audio": torch.from_numpy(audio).float(), "text_audio": torch.from_numpy(text).float()},
        clips={"audio": torch.arange(clips), "text_audio": torch.tensor(owner)},
        groups={"audio": torch.tensor(sound), "text_audio": torch.tensor([int(word.split()[1]) for word in words])},
        texts={"text_audio": words},
    )
    directions = evaluate_table(table).directions
    # A caption is right for every clip of which it, or its equal, is said; and for what sounds the same as such a clip.
    said: dict[str, set[int]] = {}
    for word, clip in zip(words, owner, strict=True):
        said.setdefault(word, set()).add(sound[clip])
    right = [[sound[clip] in said[word] for clip in range(clips)] for word in words]
    scores = [[math.fsum(a * b for a, b in zip(t, s, strict=True)) for s in audio.tolist()] for t in text.tolist()]
    turned = [list(column) for column in zip(*scores, strict=True)]
    right_turned = [list(column) for column in zip(*right, strict=True)]
    for name, given, good in (
        ("text_audio->audio", scores, right),
        ("audio->text_audio", turned, right_turned),
    ):
        for k, expected in recalls(given, good).items():
            assert directions[name].plain[f"R@{k}"] == pytest.approx(expected, abs=1e-6), (name, k)
        for k, expected in recalls(softened(given), good).items():
            assert directions[name].dual_softmax[f"R@{k}"] == pytest.approx(expected, abs=1e-6), (name, k)


@pytest.mark.parametrize("seed", range(3))
def test_classes_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, target = rng.standard_normal((80, 9)).astype(np.float32), np.arange(80) % 9
    found, _ = classification_metrics(torch.from_numpy(scores), [[int(c)] for c in target])
    for k, name in ((1, "accuracy"), (5, "accuracy@5")):
        assert found[name] == pytest.approx(top_k_accuracy_score(target, scores, k=k), abs=1e-6)
    labels = rng.random((80, 9)) < 0.3
    labels[np.arange(80), target] = True
    several, _ = classification_metrics(torch.from_numpy(scores), [row.nonzero()[0].tolist() for row in labels])
    for average, name in (("macro", "mAP"), ("micro", "mAP_micro")):
        assert several[name] == pytest.approx(average_precision_score(labels, scores, average=average), abs=1e-6)
