"""PEAV: encoders and heads as one module that computes just the embeddings it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from peav.encoders.base import Encoder
from peav.encoders.heads import Head
from peav.types import BATCH_FIELDS, Batch, Embedding, Features


def resolve(
    provides: Mapping[str, Mapping[str, tuple[str, ...]]], names: Iterable[str], asked_by: str = "the model"
) -> dict[str, str]:
    """Finds which encoders make which features, in an order in which each finds its inputs.

    Args:
        provides: for each encoder, `Encoder.provides`.
        names: the features wanted.
        asked_by: who wants them, for the message.

    Returns:
        feature name -> encoder name, inputs before what reads them.

    Raises:
        ValueError: if nobody provides a feature, two encoders provide the same one, or encoders read each other in a circle.
    """
    owner: dict[str, str] = {}
    for encoder, features in provides.items():
        for feature in features:
            if feature in owner:
                raise ValueError(f"encoders {owner[feature]!r} and {encoder!r} both provide {feature!r}: remove one")
            owner[feature] = encoder
    order: dict[str, str] = {}

    def visit(name: str, reader: str, path: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in path:
            raise ValueError(f"encoders read each other in a circle: {' -> '.join((*path, name))}")
        if name not in owner:
            offered = ", ".join(sorted(owner)) or "nothing"
            raise ValueError(
                f"{reader} reads {name!r}, but the encoders provide {offered}. Add an encoder that provides {name!r}, or drop "
                "what reads it."
            )
        for source in provides[owner[name]][name]:
            if source.startswith("features."):
                visit(source.removeprefix("features."), f"encoder {owner[name]!r}", (*path, name))
            elif source not in BATCH_FIELDS:
                raise ValueError(
                    f"encoder {owner[name]!r} reads {source!r}, which is neither a batch field ({', '.join(BATCH_FIELDS)}) nor "
                    "features.NAME"
                )
        order[name] = owner[name]

    for name in names:
        visit(name, asked_by, ())
    return order


class PEAV(nn.Module):
    """Encoders and heads: from a batch to embeddings in one space.

    Args:
        encoders: by a name of the user's choice. Those that no wanted embedding needs are left out.
        embeddings: names of the embeddings wanted; everything that the encoders provide by default.
        embedding_dim: dimension of the shared space.
        normalize: whether embeddings get unit length.

    Raises:
        ValueError: if an embedding cannot be made from these encoders, or their dimensions do not fit.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        embeddings: Collection[str] | None = None,
        embedding_dim: int = 1024,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        provides = {name: encoder.provides for name, encoder in encoders.items()}
        wanted = sorted(embeddings) if embeddings is not None else [f for p in provides.values() for f in p]
        self._order = resolve(provides, wanted)
        for feature, owner in self._order.items():
            for source in provides[owner][feature]:
                if source.startswith("features."):
                    self._check_dim(encoders, owner, source.removeprefix("features."))
        self.encoders = nn.ModuleDict({name: encoders[name] for name in dict.fromkeys(self._order.values())})
        self.heads = nn.ModuleDict(
            {name: Head(encoders[self._order[name]].dims[name], embedding_dim, normalize) for name in wanted}
        )
        self.embedding_dim, self.normalize = embedding_dim, normalize

    def _check_dim(self, encoders: Mapping[str, Encoder], reader: str, feature: str) -> None:
        expected = encoders[reader].input_dims.get(feature)
        found = encoders[self._order[feature]].dims[feature]
        if expected is not None and expected != found:
            raise ValueError(
                f"encoder {reader!r} expects {feature!r} features of dimension {expected}, but encoder "
                f"{self._order[feature]!r} makes them of dimension {found}: set both to the same number"
            )

    @property
    def embedding_names(self) -> tuple[str, ...]:
        """The embeddings this model can make."""
        return tuple(self.heads)

    @property
    def batch_fields(self) -> frozenset[str]:
        """The fields of a batch that the model reads, of `peav.types.BATCH_FIELDS`."""
        return self.fields_for(self.heads)

    def fields_for(self, names: Iterable[str]) -> frozenset[str]:
        """Returns the fields of a batch that these embeddings need."""
        order = resolve({name: encoder.provides for name, encoder in self._encoders()}, names)
        sources = {source for name, owner in order.items() for source in self._encoder(owner).provides[name]}
        return frozenset(source for source in sources if not source.startswith("features."))

    def encoders_for(self, names: Iterable[str]) -> frozenset[str]:
        """Returns the names of the encoders that these embeddings need."""
        return frozenset(resolve({name: encoder.provides for name, encoder in self._encoders()}, names).values())

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        if not isinstance(encoder, Encoder):
            raise TypeError(f"{name!r} is not an Encoder")
        return encoder

    def _encoders(self) -> list[tuple[str, Encoder]]:
        return [(name, self._encoder(name)) for name in self.encoders]

    def forward(
        self, batch: Batch, names: Collection[str] | None = None, frames: Collection[str] = ()
    ) -> dict[str, Embedding]:
        """Computes embeddings.

        Args:
            batch: clips; only the fields in :meth:`fields_for` are read.
            names: embeddings wanted, all by default.
            frames: those of them whose frames go through the head too.

        Returns:
            the embeddings by name.

        Raises:
            KeyError: if a name is not among `embedding_names`, or the batch lacks a field.
            ValueError: if frames are asked for that an encoder does not make.
        """
        wanted = list(names) if names is not None else list(self.heads)
        for name in wanted:
            if name not in self.heads:
                raise KeyError(f"this model has no embedding {name!r}; it has {', '.join(self.heads)}")
        features = self.encode(batch, wanted)
        outputs = {}
        for name in wanted:
            feature, head = features[name], self.heads[name]
            sequence = None
            if name in frames:
                if feature.frames is None:
                    raise ValueError(f"the encoder of {name!r} makes no frames")
                sequence = head(feature.frames)
            outputs[name] = Embedding(
                pooled=head(feature.pooled),
                present=feature.present,
                group=feature.group,
                frames=sequence,
                mask=feature.mask,
                frame_seconds=feature.frame_seconds,
            )
        return outputs

    def encode(self, batch: Batch, names: Iterable[str]) -> dict[str, Features]:
        """Computes features, before any head, of these names and of whatever they read."""
        order = resolve({name: encoder.provides for name, encoder in self._encoders()}, names)
        features: dict[str, Features] = {}
        pending = dict(order)
        while pending:
            # One call an encoder, unless it reads its own features: what is ready by now goes together.
            owner = next(iter(pending.values()))
            encoder = self._encoder(owner)
            ready = [
                name
                for name, other in pending.items()
                if other == owner and all(_is_ready(source, features) for source in encoder.provides[name])
            ]
            inputs: dict[str, Any] = {
                source: features[source.removeprefix("features.")]
                if source.startswith("features.")
                else batch.read(source)
                for name in ready
                for source in encoder.provides[name]
            }
            features.update(encoder(inputs, ready))
            for name in ready:
                del pending[name]
        return features


def _is_ready(source: str, features: Mapping[str, Features]) -> bool:
    return not source.startswith("features.") or source.removeprefix("features.") in features
