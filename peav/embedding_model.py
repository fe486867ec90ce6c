"""The model that computes: encoders, heads and the scores of pairs as one module, which makes just the embeddings it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from peav import registry
from peav.checkpoints.detection import DetectionSettings
from peav.checkpoints.spec import TEN_PAIRS, MediaSettings, ModelSpec, Pair
from peav.encoders.base import Encoder
from peav.encoders.graph import is_ready, resolve, shared_heads, sources_of
from peav.encoders.heads import Head
from peav.objectives.text_score import TextScore
from peav.tokenizing import Tokenizers
from peav.trust import Trust
from peav.types import (
    Batch,
    CachedFeatures,
    ClipFormat,
    Embedding,
    EventInput,
    Features,
    TextInput,
    TokenizeTexts,
    is_text,
    merge_formats,
)


class PairScore(nn.Module):
    """The learned scale and bias by which the dot products of a pair become logits; the scale itself, not its log."""

    def __init__(self) -> None:
        super().__init__()
        # The objectives train scales and biases; these keep what a checkpoint was trained with.
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(1), requires_grad=False)


def _score(dim: int) -> TextScore:
    # As those of `PairScore`, it is trained by the objective that has it.
    return TextScore(dim).requires_grad_(False)


class _BatchReader:
    """Reads fields of a batch for encoders, texts with the ids meant for each; the same texts stay the same object."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._known: dict[tuple[int, str], Any] = {}

    def __call__(self, source: str, encoder: str) -> Any:
        value = self._batch.read(source)
        if not isinstance(value, TextInput | EventInput):
            return value
        return self._known.setdefault((id(value), encoder), value.read_by(encoder))


class EmbeddingModel(nn.Module):
    """Encoders and heads: from a batch to embeddings in one space.

    Training, evaluation and `peav.inputs` work with it; :class:`peav.model.PEAV` adds what people call: checkpoints, files and texts.

    Args:
        encoders: by a name of the user's choice. Those that no wanted embedding needs are left out.
        embeddings: names of the embeddings wanted; everything that the encoders provide by default.
        embedding_dim: dimension of the shared space.
        normalize: whether embeddings get unit length.
        frames: names of the embeddings that are made frame by frame.
        pairs: pairs of embeddings whose scale and bias the model holds.
        media: what a clip looks like to the model; that of the released models by default.
        detection: how it finds sounds by name; the defaults of `DetectionSettings` if nobody tuned it.
        text_pairs: those of `pairs` whose scale and bias depend on the right one, a text.

    Attributes:
        unused: tensors of Meta's format that no computation reads, kept for a whole export.

    Raises:
        ValueError: if an embedding cannot be made from these encoders, or their dimensions do not fit.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        embeddings: Collection[str] | None = None,
        embedding_dim: int = 1024,
        normalize: bool = True,
        frames: Collection[str] = (),
        pairs: Collection[Pair] = (),
        media: MediaSettings | None = None,
        detection: DetectionSettings | None = None,
        text_pairs: Collection[Pair] = (),
    ) -> None:
        super().__init__()
        provides = {name: encoder.provides for name, encoder in encoders.items()}
        if isinstance(embeddings, set | frozenset):
            embeddings = sorted(embeddings)  # a model's configuration must not depend on hashes
        every = embeddings if embeddings is not None else [f for p in provides.values() for f in p]
        shared = shared_heads(encoders, resolve(provides, [*every, *frames]))
        # What goes through the head of another embedding brings that one along.
        self.pooled_names = tuple(dict.fromkeys([*every, *(shared[name] for name in every if name in shared)]))
        self.frame_names = tuple(frames)
        names = {*self.pooled_names, *self.frame_names}
        wanted = sorted(names) if embeddings is not None else list(dict.fromkeys(self.pooled_names + self.frame_names))
        self._order = resolve(provides, wanted)
        self._head_of = {name: shared.get(name, name) for name in wanted}
        for feature, owner in self._order.items():
            for source in provides[owner][feature]:
                if source.startswith("features."):
                    self._check_dim(encoders, owner, source.removeprefix("features."))
        self.encoders = nn.ModuleDict({name: encoders[name] for name in dict.fromkeys(self._order.values())})
        self.heads = nn.ModuleDict(
            {
                name: Head(encoders[self._order[name]].dims[name], embedding_dim, normalize)
                for name in wanted
                if self._head_of[name] == name
            }
        )
        self.embedding_dim, self.normalize = embedding_dim, normalize
        self.scores = nn.ModuleDict(
            {
                f"{left}:{right}": _score(embedding_dim) if (left, right) in text_pairs else PairScore()
                for left, right in pairs
            }
        )
        self.media = media if media is not None else MediaSettings(**self.clip_format.settings())
        known = ClipFormat(sample_rate=self.media.sample_rate, frame_size=self.media.frame_size)
        merge_formats({"the checkpoint (its `media`)": known, "its encoder": self.clip_format})
        self.detection = detection
        self.unused: dict[str, Tensor] = {}

    @classmethod
    def from_spec(cls, spec: ModelSpec, trust: Trust = Trust.NAMES) -> Self:
        """Builds a model of random weights from its specification; `trust` says whether classes may be named by dotted paths."""
        registry.load_plugins()
        encoders = {name: registry.encoders.build(config, trust) for name, config in spec.encoders.items()}
        return cls(
            encoders,
            embeddings=spec.embeddings,
            embedding_dim=spec.embedding_dim,
            normalize=spec.normalize,
            frames=spec.frames,
            pairs=spec.pairs,
            media=spec.media,
            detection=spec.detection,
            text_pairs=spec.text_pairs,
        )

    @property
    def spec(self) -> ModelSpec:
        """The model as plain data."""
        return ModelSpec(
            encoders={name: encoder.config for name, encoder in self.each_encoder().items()},
            embeddings=self.pooled_names,
            frames=self.frame_names,
            embedding_dim=self.embedding_dim,
            normalize=self.normalize,
            pairs=self.pairs,
            media=self.media,
            detection=self.detection,
            text_pairs=self.text_pairs,
        )

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs whose scale and bias the model holds."""
        split = (key.split(":") for key in self.scores)
        return tuple((left, right) for left, right in split)

    @property
    def text_pairs(self) -> tuple[Pair, ...]:
        """Those of `pairs` whose scale and bias depend on the right one, a text."""
        return tuple(pair for pair in self.pairs if isinstance(self.scores[":".join(pair)], TextScore))

    @property
    def missing_pairs(self) -> tuple[Pair, ...]:
        """The pairs of PE-AV that the model could score, were their scale and bias known."""
        return tuple(pair for pair in TEN_PAIRS if set(pair) <= set(self.pooled_names) and pair not in self.pairs)

    def score(self, pair: Pair, texts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the scale (not its log) and the bias of a pair.

        Args:
            pair: names of two embeddings.
            texts: (K, D) embeddings of the right one, which those of `text_pairs` need.

        Returns:
            (1,) and (1,), or (K,) and (K,) where each text has its own.

        Raises:
            KeyError: if the model does not hold them.
            ValueError: if they depend on the texts, and none are given.
        """
        self.check_score(pair)
        score = self.scores[f"{pair[0]}:{pair[1]}"]
        if isinstance(score, TextScore):
            if texts is None:
                raise ValueError(
                    f"each text has its own scale and bias for {' x '.join(pair)}: give the {pair[1]!r} embeddings"
                )
            scale, bias = score(texts.to(score.device))
            return scale, bias
        scale, bias = score.parameters()
        return scale, bias

    def check_score(self, pair: Pair) -> None:
        """Checks that the model holds the scale and bias of a pair.

        Raises:
            KeyError: if it does not.
        """
        key = f"{pair[0]}:{pair[1]}"
        if key not in self.scores:
            known = ", ".join(" x ".join(known) for known in self.pairs) or "no pair"
            raise KeyError(
                f"this checkpoint holds no scale and bias for {' x '.join(pair)}; it holds {known}. Multiply the embeddings for raw "
                "dot products"
            )

    def set_score(self, pair: Pair, scale: Tensor, bias: Tensor) -> None:
        """Sets the scale (not its log) and the bias of a pair, each (1,), adding the pair where the model does not hold it.

        Where each text has its own, all get the same.
        """
        key = f"{pair[0]}:{pair[1]}"
        if key not in self.scores:
            self.scores[key] = PairScore().to(scale.device)
        score = self.scores[key]
        if isinstance(score, TextScore):
            score.set_constants(scale, bias)
            return
        for parameter, value in zip(self.score(pair), (scale, bias), strict=True):
            parameter.data.copy_(value.detach().view(1))

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
        return tuple(self._head_of)

    def head_names(self, names: Iterable[str]) -> frozenset[str]:
        """Returns which of `heads` these embeddings go through."""
        return frozenset(self._head_of[name] for name in names if name in self._head_of)

    @property
    def batch_fields(self) -> frozenset[str]:
        """The fields of a batch that the model reads, see `peav.fields`."""
        return self.fields_for(self._head_of)

    def fields_for(self, names: Iterable[str]) -> frozenset[str]:
        """Returns the fields of a batch that these embeddings need."""
        order = self._resolve(names)
        sources = {source for name, owner in order.items() for source in self._encoder(owner).provides[name]}
        return frozenset(source for source in sources if not source.startswith("features."))

    def encoders_for(self, names: Iterable[str]) -> frozenset[str]:
        """Returns the names of the encoders that these embeddings need."""
        return frozenset(self._resolve(names).values())

    def _resolve(self, names: Iterable[str]) -> dict[str, str]:
        """Returns feature -> encoder for embeddings, in the order of computation."""
        return resolve({name: encoder.provides for name, encoder in self.each_encoder().items()}, sources_of(names))

    @property
    def clip_format(self) -> ClipFormat:
        """What a clip must look like to the encoders."""
        return merge_formats(
            {f"encoder {name!r}": encoder.clip_format for name, encoder in self.each_encoder().items()}
        )

    def tokenizers(self, names: Iterable[str] | None = None) -> Tokenizers:
        """Returns how texts become token ids for these embeddings, or for all.

        Encoders that read texts without a tokenizer are left out: they take ids, or the strings themselves.
        """
        found: dict[str, dict[str, TokenizeTexts]] = {}
        for feature, owner in self._resolve(self._head_of if names is None else names).items():
            encoder = self._encoder(owner)
            for source in encoder.provides[feature]:
                if is_text(source) and encoder.tokenize is not None:
                    found.setdefault(source, {})[owner] = encoder.tokenize
        return Tokenizers(found)

    def encoder_of(self, name: str) -> Encoder:
        """Returns the encoder that makes the features of an embedding."""
        return self._encoder(self._order[name])

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        if not isinstance(encoder, Encoder):
            raise TypeError(f"{name!r} is not an Encoder")
        return encoder

    def each_encoder(self) -> dict[str, Encoder]:
        """Returns the encoders by name."""
        return {name: self._encoder(name) for name in self.encoders}

    def frontend_features(self, encoder: str, name: str, media: Any) -> CachedFeatures:
        """Runs the frozen frontend of an encoder: see `Encoder.frontend_features`.

        Through the model, for a sharded model gathers its weights when it is called, and none of its encoders could by itself.

        Args:
            encoder: its name.
            name: batch field, a key of the encoder's `frontends`.
            media: that field of a batch.
        """
        return self._encoder(encoder).frontend_features(name, media)

    def allowed(self, batch: Batch, rows: Collection[int]) -> dict[str, Tensor]:
        """Computes every embedding that a batch allows, as tensors by name; frames as `NAME_frames`.

        Args:
            batch: media, captions and phrases; what it lacks allows nothing.
            rows: the different numbers of rows in it; queries of a medium and a text need one number for both.
        """
        held = batch.held

        def possible(name: str) -> bool:
            return self.fields_for([name]) <= held and (len(rows) == 1 or not name.endswith("_plus_text"))

        pooled = [name for name in self.pooled_names if possible(name)]
        frames = [name for name in self.frame_names if possible(name)]
        found = self.embed_batch(batch, list(dict.fromkeys(pooled + frames)), frames)
        outputs = {name: found[name].pooled for name in pooled}
        for name in frames:
            sequence = found[name].frames
            if sequence is not None:
                outputs[f"{name}_frames"] = sequence
        return outputs

    def embed_batch(
        self, batch: Batch, names: Collection[str] | None = None, frames: Collection[str] = ()
    ) -> dict[str, Embedding]:
        """Computes embeddings.

        Args:
            batch: clips; only the fields in :meth:`fields_for` are read.
            names: embeddings wanted, all by default; `features.NAME` is what the encoder made, before its head.
            frames: those of them whose frames go through the head too.

        Returns:
            the embeddings by name.

        Raises:
            KeyError: if a name is not among `embedding_names`, or the batch lacks a field.
            ValueError: if frames are asked for that an encoder does not make.
        """
        wanted = list(names) if names is not None else list(self._head_of)
        for name in wanted:
            if not name.startswith("features.") and name not in self._head_of:
                raise KeyError(f"this model has no embedding {name!r}; it has {', '.join(self._head_of)}")
        features = self.encode(batch, sources_of(wanted))
        outputs = {}
        for name in wanted:
            if name.startswith("features."):
                feature = features[name.removeprefix("features.")]
                outputs[name] = Embedding(**{field.name: getattr(feature, field.name) for field in fields(feature)})
                continue
            feature, head = features[name], self.heads[self._head_of[name]]
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
        order = self._resolve(names)
        features: dict[str, Features] = {}
        read = _BatchReader(batch)
        pending = dict(order)
        while pending:
            # One call an encoder, unless it reads its own features: what is ready by now goes together.
            owner = next(iter(pending.values()))
            encoder = self._encoder(owner)
            ready = [
                name
                for name, other in pending.items()
                if other == owner and all(is_ready(source, features) for source in encoder.provides[name])
            ]
            inputs: dict[str, Any] = {
                source: features[source.removeprefix("features.")]
                if source.startswith("features.")
                else read(source, owner)
                for name in ready
                for source in encoder.provides[name]
            }
            features.update(encoder(inputs, ready))
            for name in ready:
                del pending[name]
        return features
