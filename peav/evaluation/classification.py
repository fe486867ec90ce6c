"""Classes of clips: by prompts (zero-shot), and by probes that learn on frozen embeddings. The metrics are torchmetrics'."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_average_precision

#: Clips whose scores are there at a time.
_CLIPS_AT_ONCE = 4096


def classification_metrics(scores: Tensor, truth: Sequence[Sequence[int]]) -> tuple[dict[str, float], Tensor]:
    """Computes top-1, top-5 and mean per-class accuracy; or, where clips have several classes, mAP.

    Args:
        scores: (N, C), higher is likelier.
        truth: the classes of each clip.

    Returns:
        `accuracy`, `accuracy@5` (from five classes on) and `mean_class_accuracy`, or `mAP` (macro, over the classes that occur) and
        `mAP_micro`; and (N,) bool whether the best class is right.

    Raises:
        ValueError: if there are no clips, or a clip has no class.

    >>> scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    >>> classification_metrics(scores, [[0], [1], [1]])[0]["accuracy"]
    0.6666666865348816
    """
    num_clips, num_classes = scores.shape
    if not num_clips or not all(truth):
        raise ValueError(
            f"{num_clips} clips, of which {sum(not one for one in truth)} have no class: nothing to classify"
        )
    best = scores.argmax(1)
    # Of classes with one score nobody is right.
    tied = (scores == scores.gather(1, best[:, None])).sum(1) > 1
    hits = torch.tensor([int(b) in one for b, one in zip(best, truth, strict=True)]) & ~tied
    if any(len(set(one)) > 1 for one in truth):
        labels = torch.zeros(num_clips, num_classes, dtype=torch.int64)
        for row, one in enumerate(truth):
            labels[row, list(one)] = 1
        occurs = labels.any(0)
        scores, labels, count = scores[:, occurs], labels[:, occurs], int(occurs.sum())
        macro = multilabel_average_precision(scores, labels, count, average="macro")
        micro = multilabel_average_precision(scores, labels, count, average="micro")
        return {"mAP": float(macro), "mAP_micro": float(micro)}, hits
    target = torch.tensor([one[0] for one in truth])
    scores = _against_ties(scores, target)
    found = {"accuracy": float(multiclass_accuracy(scores, target, num_classes, average="micro"))}
    if num_classes >= 5:
        found["accuracy@5"] = float(multiclass_accuracy(scores, target, num_classes, average="micro", top_k=5))
    each = multiclass_accuracy(scores, target, num_classes, average="none")
    found["mean_class_accuracy"] = float(each[target.unique()].mean())
    return found, hits


def _against_ties(scores: Tensor, target: Tensor) -> Tensor:
    """Puts the right class of each clip behind those that have its score: ties count against the model, as in retrieval."""
    own = scores.gather(1, target[:, None])
    lower = torch.nextafter(own, torch.full_like(own, -torch.inf))
    return scores.scatter(1, target[:, None], torch.where((scores == own).sum(1, keepdim=True) > 1, lower, own))


def class_scores(items: Tensor, classes: Tensor) -> Tensor:
    """Returns the dot products (N, C) of embeddings and classes, rounded from float64 so that equal rows tie."""
    parts = [
        (items[start : start + _CLIPS_AT_ONCE].double() @ classes.double().T).float()
        for start in range(0, len(items), _CLIPS_AT_ONCE)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, len(classes))


def linear_probe(
    train: Tensor, labels: Tensor, test: Tensor, num_classes: int, decay: float = 1e-3, steps: int = 200
) -> Tensor:
    """Fits a linear layer (multinomial logistic regression, L-BFGS) on standardised features, and returns its logits.

    Args:
        train: (N, D).
        labels: (N,) int64.
        test: (M, D).
        num_classes: C.
        decay: weight of the squared norm of the weights in the loss.
        steps: of L-BFGS at most.

    Returns:
        (M, C).
    """
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0).clamp(min=1e-6)
    features = (train.double() - mean) / deviation
    weight = torch.zeros(train.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weight + bias, labels) + decay * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (((test.double() - mean) / deviation) @ weight + bias).detach().float()


def knn_probe(train: Tensor, labels: Tensor, test: Tensor, num_classes: int, k: int = 20, heat: float = 0.07) -> Tensor:
    """Lets the k nearest training clips by cosine vote, each with exp(cosine / heat) (Wu et al., CVPR 2018).

    Args:
        train: (N, D).
        labels: (N,) int64.
        test: (M, D).
        num_classes: C.
        k: neighbours; all where there are fewer.
        heat: of the votes.

    Returns:
        (M, C) votes.
    """
    unit = F.normalize(train.double(), dim=1)
    votes = torch.zeros(len(test), num_classes, dtype=torch.float64)
    for start in range(0, len(test), _CLIPS_AT_ONCE):
        cosine = F.normalize(test[start : start + _CLIPS_AT_ONCE].double(), dim=1) @ unit.T
        near = cosine.topk(min(k, len(train)), 1)
        votes[start : start + _CLIPS_AT_ONCE].scatter_add_(1, labels[near.indices], (near.values / heat).exp())
    return votes.float()


#: The probes by the kind of their task.
PROBES: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "linear_probe": linear_probe,
    "knn_probe": knn_probe,
}
