"""What every objective declares and returns."""

from __future__ import annotations

import itertools
import math
import operator
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from peav.devices import widest
from peav.distributed import with_world
from peav.masking import SpanMasking
from peav.objectives.text_score import TextScore
from peav.objectives.tiles import PairSums
from peav.registry import Plugin
from peav.types import Embedding, ObjectiveOutput

#: Names of a left and a right embedding.
Pair = tuple[str, str]

#: Factor of a loss, or points (optimizer step, factor) of a piecewise linear schedule.
Weight = float | list[tuple[int, float]]

_NO_WEIGHT = "weight must be a finite number of at least 0, or a list of [step, weight], not {!r}"


def _points(weight: Weight) -> list[tuple[int, float]]:
    """Returns a weight as points of a schedule."""
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        return [(0, float(weight))]
    try:
        pairs = [(operator.index(step), float(value)) for step, value in weight]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise ValueError(_NO_WEIGHT.format(weight)) from None
    return pairs


class Objective(Plugin):
    """Base class of objectives: embeddings in, one scalar loss out.

    A subclass sets in its constructor what it needs; the module builds and computes nothing else. It knows embedding names only,
    never an encoder, a batch or the trainer, and owns its learned scalars.

    Attributes:
        requires: names of the embeddings that :meth:`forward` receives. `features.NAME` is what the encoder of NAME made, before its
            head, in the form of an embedding.
        frames: those of them whose frames (N, T, D) are needed besides the pooled vectors.
        targets: batch fields (`peav.fields`) that are passed through as they are, such as `events`.
        pairs: names whose rows are compared across clips: of one of the two at least, `world.pooled` holds the rows of all ranks. Which
            one is chosen so that all objectives together gather as little as can be.
        ring: whether `pairs` can also be computed where no rows are gathered, as the setting `exchange: ring` has it.
        gathers: names of which `world.pooled` is there in any case.
        detached: those of `requires` that teach: they get no gradient.
        frame_pair: where an objective compares frames with phrases, the names of both, such as `("audio", "text_event")`: evaluation ranks
            the frames by their dot products with each phrase. The second is made of texts alone.
        masking: spans to hide from the encoder of an embedding in training, by its name; `features.NAME` then has `inputs` and `hidden`.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
    """

    requires: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    ring: bool = False
    gathers: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    frame_pair: Pair | None = None
    masking: Mapping[str, SpanMasking] = MappingProxyType({})
    weight: Weight = 1.0

    def __init__(self, weight: Weight = 1.0) -> None:
        super().__init__()
        points = _points(weight)
        if not points or not all(math.isfinite(value) and value >= 0 for _, value in points):
            raise ValueError(_NO_WEIGHT.format(weight))
        if any(later <= earlier for (earlier, _), (later, _) in itertools.pairwise(points)):
            raise ValueError(f"the steps of a weight must ascend, not {weight}")
        self.weight, self._points = weight, points

    def weight_at(self, step: int) -> float:
        """Returns the weight at an optimizer step: linear between the points of a schedule, constant before and after them."""
        (begin, low), *rest = self._points
        for end, high in rest:
            if step < end:
                return low + (high - low) * max(0, step - begin) / (end - begin)
            begin, low = end, high
        return low

    def after_step(self) -> None:
        """Is called after every optimizer step: where learned scalars can be held in bounds."""

    @property
    def compared(self) -> tuple[Pair, ...]:
        """The pairs of embeddings that it makes agree clip by clip: evaluation looks in both directions for one by the other.

        By default `pairs`; where there are none, the two names of `requires`, if it has two and wants no frames.
        """
        pairs = self.pairs
        if not pairs and len(self.requires) == 2 and not self.frames:
            pairs = ((self.requires[0], self.requires[1]),)
        return tuple(pair for pair in pairs if not any(name.startswith("features.") for name in pair))

    def pair_scores(self) -> dict[Pair, tuple[Tensor, Tensor]]:
        """Returns the learned scale (not its log) and bias, each (1,), by which the dot products of a pair become logits, by pair.

        A model that is loaded or exported keeps them: `PEAV.similarity` and frame probabilities use them. By default those of an
        objective that `requires` two embeddings and has `logit_scale` (the log of the scale) and `logit_bias`; nothing of any other.
        An objective that keeps its scale otherwise overrides this and :meth:`set_pair_score`; where it has none of the two, 1 and 0 are
        what leaves dot products as they are.
        """
        scale, bias = getattr(self, "logit_scale", None), getattr(self, "logit_bias", None)
        if not isinstance(scale, Tensor) or not isinstance(bias, Tensor) or len(self.requires) != 2:
            return {}
        return {(self.requires[0], self.requires[1]): (scale.detach().exp().view(1), bias.detach().view(1))}

    def text_scores(self) -> dict[Pair, TextScore]:
        """Returns what makes the scale and bias of each text, by pair, where each has its own; the right name is that of the texts.

        A pair is in this or in :meth:`pair_scores`, never in both.
        """
        return {}

    @torch.no_grad()
    def set_pair_score(self, pair: Pair, scale: Tensor, bias: Tensor) -> None:
        """Takes over a published scale and bias, each (1,), of a pair: the inverse of :meth:`pair_scores`.

        Raises:
            ValueError: if the objective keeps them otherwise than in `logit_scale` and `logit_bias`, and says not how.
        """
        own = getattr(self, "logit_scale", None), getattr(self, "logit_bias", None)
        if not isinstance(own[0], Tensor) or not isinstance(own[1], Tensor):
            raise ValueError(
                f"{type(self).__name__} has `pair_scores`, but no `logit_scale` and `logit_bias` to take those of "
                f"{' x '.join(pair)} over: give it a `set_pair_score`"
            )
        # In double precision, so that the log costs no more than its rounding.
        own[0].copy_(widest(scale).log().view_as(own[0]))
        own[1].copy_(bias.view_as(own[1]))

    def begin_calibration(self) -> bool:
        """Is called where training starts from a checkpoint that holds no scale and bias for one of :meth:`pair_scores`.

        Returns:
            whether the next training batch will set them; by default they stay as the configuration has them.
        """
        return False

    def end_calibration(self) -> None:
        """Is called where training resumes: what is resumed has been fitted."""

    def __call__(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Runs :meth:`forward` outside autocast on embeddings of at least fp32: half precision loses positives (docs/decisions/0006).

        Embeddings that lack their `world` get it here, with collectives of their own; in training the module has gathered once for
        all objectives.
        """
        with in_full_precision(embeddings):
            whole = {name: full_precision(e) for name, e in embeddings.items()}
            output = super().__call__(with_world(whole, self.pairs, self.gathers), targets)
        if not isinstance(output, ObjectiveOutput):
            raise TypeError(
                f"{type(self).__name__}.forward must return an ObjectiveOutput, not {type(output).__name__}"
            )
        return output

    @abstractmethod
    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss.

        Args:
            embeddings: by name, everything in `requires`: rows of this rank, and in `world` presence and identity of all ranks' rows.
            targets: by name, everything in `targets`.

        Returns:
            the loss (before `weight`), the global count of valid positives, and what to log.
        """


@contextmanager
def in_full_precision(embeddings: Mapping[str, Embedding]) -> Iterator[None]:
    """Runs objectives, forward and backward, as the precision of the encoders must not: without autocast, new tensors in fp32 or wider.

    A backward pass that runs inside autocast computes its matrix products in half precision, whatever the forward pass did; and a
    precision such as `bf16-true` makes half precision the type of tensors that an objective creates.

    Args:
        embeddings: on whose device autocast ends.
    """
    device = next((embedding.pooled.device.type for embedding in embeddings.values()), "cpu")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def full_precision(embedding: Embedding) -> Embedding:
    """Returns the embedding in fp32, or as it is where it is fp32 or float64 already."""
    pooled, frames = embedding.pooled, embedding.frames
    if all(t is None or t.dtype in (torch.float32, torch.float64) for t in (pooled, frames)):
        return embedding
    return replace(embedding, pooled=pooled.float(), frames=None if frames is None else frames.float())


class ScoredObjective(Objective):
    """An objective that compares by `t <x, y> + b`, with its own t and b: `logit_scale`, the log of t, and `logit_bias`, each (1,) in fp32.

    Args:
        scale: initial t; its log is learned.
        bias: initial b; None where a bias changes nothing, as in a softmax.
        weight: factor of the loss in the total, or a schedule.
        max_scale: t is held at this or below after every step; unbounded by default. 100 is open_clip's, which silently moves released
            models that are beyond it.

    Raises:
        ValueError: if `scale` is not positive, `bias` not finite, or `max_scale` below `scale`.
    """

    def __init__(self, scale: float, bias: float | None, weight: Weight = 1.0, max_scale: float | None = None) -> None:
        super().__init__(weight)
        if not (scale > 0 and math.isfinite(scale) and (bias is None or math.isfinite(bias))):
            raise ValueError(f"scale must be positive and bias finite, not {scale} and {bias}")
        if max_scale is not None and not max_scale >= scale:
            raise ValueError(f"max_scale={max_scale} is below the initial scale, {scale}")
        self.logit_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        if bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor([float(bias)]))
        self.max_scale = max_scale

    @torch.no_grad()
    def after_step(self) -> None:
        """Holds t at `max_scale` or below."""
        if self.max_scale is not None:
            self.logit_scale.clamp_(max=math.log(self.max_scale))

    def score_log(self, sums: PairSums) -> dict[str, Tensor]:
        """Returns what to log of t, b, and the logits of positives and negatives; NaN where there are none."""
        positive, negative = sums.means
        return {
            "scale": self.logit_scale.detach().exp().squeeze(),
            "bias": self.logit_bias.detach().squeeze(),
            "positive_logit": positive,
            "negative_logit": negative,
        }
