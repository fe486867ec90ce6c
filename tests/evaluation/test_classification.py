from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision

from peav.evaluation.classification import class_scores, classification_metrics, knn_probe, linear_probe
from peav.evaluation.prompts import class_embeddings, parse_prompts


def draw(seed: int, clips: int = 60, classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(clips, classes, generator=g), torch.randint(classes, (clips,), generator=g)


def test_accuracies_equal_torchmetrics_and_a_loop():
    scores, target = draw(0)
    found, hits = classification_metrics(scores, [[int(c)] for c in target])
    for k, name in ((1, "accuracy"), (5, "accuracy@5")):
        expected = float(MulticlassAccuracy(8, top_k=k, average="micro")(scores, target))
        order = scores.argsort(1, descending=True)[:, :k]
        assert (
            found[name]
            == pytest.approx(expected)
            == pytest.approx(float((order == target[:, None]).any(1).double().mean()))
        )
    each = [float((scores.argmax(1)[target == c] == c).double().mean()) for c in target.unique().tolist()]
    assert found["mean_class_accuracy"] == pytest.approx(sum(each) / len(each))
    assert hits.tolist() == (scores.argmax(1) == target).tolist()


def loop_average_precision(scores: list[float], labels: list[int]) -> float:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    found, total = 0, 0.0
    for place, index in enumerate(order, 1):
        if labels[index]:
            found += 1
            total += found / place
    return total / sum(labels)


def several_classes() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels, of which one class does not occur."""
    scores, _ = draw(1)
    g = torch.Generator().manual_seed(2)
    labels = (torch.rand(60, 8, generator=g) < 0.3).int()
    labels[:, 7] = 0
    labels[labels.sum(1) == 0, 0] = 1
    return scores, labels


def test_mean_average_precision_equals_torchmetrics_and_a_loop():
    scores, labels = several_classes()
    found, _ = classification_metrics(scores, [row.nonzero().flatten().tolist() for row in labels])
    each = [loop_average_precision(scores[:, c].tolist(), labels[:, c].tolist()) for c in range(7)]
    assert found["mAP"] == pytest.approx(sum(each) / 7, abs=1e-6)
    theirs = MultilabelAveragePrecision(7, average="macro")(scores[:, :7], labels[:, :7])
    assert found["mAP"] == pytest.approx(float(theirs))


def test_mean_average_precision_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = several_classes()
    found, _ = classification_metrics(scores, [row.nonzero().flatten().tolist() for row in labels])
    expected = sklearn.average_precision_score(labels[:, :7].numpy(), scores[:, :7].numpy(), average="macro")
    assert found["mAP"] == pytest.approx(expected, abs=1e-6)


def test_ties_count_against_the_model():
    found, hits = classification_metrics(torch.ones(4, 6), [[0], [1], [2], [3]])
    assert found["accuracy"] == found["accuracy@5"] == 0 and not hits.any()
    tied = class_scores(torch.ones(3, 5), torch.ones(2, 5))
    assert classification_metrics(tied, [[0], [1], [0]])[0]["accuracy"] == 0


def test_clips_without_a_class_are_refused():
    with pytest.raises(ValueError, match="2 clips, of which 1 have no class"):
        classification_metrics(torch.zeros(2, 3), [[0], []])


def test_probes_learn_what_is_there_to_learn_and_nothing_else():
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 16, generator=g)
    train_target, target = torch.randint(4, (200,), generator=g), torch.randint(4, (80,), generator=g)
    train, test = (centres[t] + 0.3 * torch.randn(len(t), 16, generator=g) for t in (train_target, target))
    for probe in (linear_probe, knn_probe):
        assert float((probe(train, train_target, test, 4).argmax(1) == target).double().mean()) > 0.95
        shuffled = train_target[torch.randperm(200, generator=g)]
        assert float((probe(train, shuffled, test, 4).argmax(1) == target).double().mean()) < 0.6


def test_the_linear_probe_is_where_its_loss_has_no_slope():
    x, target = draw(3, 50, 6)
    logits = linear_probe(x, target % 3, x, 3, decay=0.1)
    features = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    design = torch.cat([features, torch.ones(50, 1, dtype=torch.float64)], 1)
    weights = torch.linalg.lstsq(design, logits.double()).solution.requires_grad_()
    loss = torch.nn.functional.cross_entropy(design @ weights, target % 3) + 0.1 * weights[:-1].square().sum()
    loss.backward()
    assert weights.grad is not None and float(weights.grad.abs().max()) < 1e-3


def test_prompts_are_averaged_and_sets_are_for_their_classes():
    prompts = parse_prompts(
        {"birds": {"classes": ["Owl"], "templates": ["an {label}"]}, "rest": {"templates": ["{label}", "a {label}"]}}
    )
    assert prompts.of(["owl", "dog"]) == [["an owl"], ["dog", "a dog"]]
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    found = class_embeddings(rows, torch.tensor([0, 0, 1]), 2, normalize=True)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [3.0, 4.0]]) / torch.tensor([[0.5**0.5], [5.0]]))
    with pytest.raises(ValueError, match="the classes 'a dog' and 'dog' have one prompt, 'a dog'"):
        parse_prompts(["{label}", "a {label}"]).of(["a dog", "dog"])
    with pytest.raises(ValueError, match="in none of the prompt sets birds"):
        parse_prompts({"birds": {"classes": ["owl"], "templates": ["{label}"]}}).of(["dog"])
    for wrong in ([], ["no place"], {"a": {"templates": ["{label}"]}, "b": {"templates": ["x {label}"]}}):
        with pytest.raises(ValueError, match="prompt"):
            parse_prompts(wrong)
