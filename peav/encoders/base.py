"""What every encoder declares and returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from peav.registry import Plugin
from peav.types import Features


class Encoder(Plugin):
    """Base class of encoders: batch fields or other encoders' features in, features out.

    Attributes:
        provides: for each feature name that the encoder can make, what it reads for it: batch fields (`peav.types.BATCH_FIELDS`) or
            the features of other encoders, written `features.NAME`. Known without building the encoder, so that nothing is built
            that the chosen objectives do not need.
        dims: dimension of the features by name, set in the constructor.
        input_dims: dimension that the encoder expects of each feature it reads, by its name without `features.`; set in the
            constructor.
    """

    provides: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    dims: Mapping[str, int] = {}
    input_dims: Mapping[str, int] = {}

    @abstractmethod
    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Computes the features.

        What stands in padded slots or in rows that are not `present` must change nothing else.

        Args:
            inputs: what `provides` lists for the names asked for, by the name given there.
            names: which of the provided names to compute.

        Returns:
            the features by name, in the order of the batch.
        """
