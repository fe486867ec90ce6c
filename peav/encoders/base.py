"""What every encoder declares and returns: the whole of what peav knows of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn

from peav.masking import SpanMasking
from peav.registry import Plugin
from peav.types import CachedFeatures, ClipFormat, Features, Seconds, TokenizeTexts


@dataclass(frozen=True)
class Frontend:
    """The frozen part of an encoder that media go through first, and whose output may be kept in place of the media.

    Attributes:
        name: what `peav prepare --features MEDIUM=NAME` calls it.
        module: what the features follow from; its weights decide whether kept features belong to a model. The encoder calls it as a
            whole, once in a pass: FSDP2 gathers its weights then.
        dim: channels of the features.
        seconds: the time between two features; None where it is that of the media (video frames).
    """

    name: str
    module: nn.Module
    dim: int
    seconds: Seconds | None = None


@dataclass(frozen=True)
class Stack:
    """Layers of one kind that follow each other.

    Attributes:
        layers: in the order of computation. `tune: last` trains the last of them, `tune: lora` puts adapters beside their linear maps,
            FSDP2 shards each by itself; `compile_layers` compiles each by itself, and sets its attribute `compiled`.
        after: what follows them, trained with the last ones: a final norm, an output projection.
        frontend: whether they belong to a frontend, of which `tune` changes nothing: its own settings say what of it is trained.
    """

    layers: Sequence[nn.Module]
    after: Sequence[nn.Module] = ()
    frontend: bool = False


class Encoder(Plugin):
    """Base class of encoders: batch fields or other encoders' features in, features out.

    `provides`, `dims` and :meth:`forward` are all that an encoder must have. The rest is what it may declare; peav asks an encoder for
    it and never for its class, so that yours is equal to those of peav. `peav.testing.check_encoder` runs the whole contract.

    Attributes:
        provides: for each feature name that the encoder can make, what it reads for it: batch fields (`audio`, `video`, `events`,
            `captions.TYPE`; see `peav.fields`) or the features of other encoders, written `features.NAME`. Known without building the
            encoder, so that only what the objectives need is built. Where it depends on arguments, :meth:`provided` says how, and the
            constructor sets it for the encoder that was built.
        dims: dimension of the features by name, set in the constructor.
        input_dims: dimension that the encoder expects of each feature it reads, by its name without `features.`; set in the
            constructor.
        shared_heads: features that go through the head of another feature of this encoder, `{"text_transcript": "text_audio"}`: the two
            embed as one, and differ in what of a batch they read. Every other feature has a head of its own. Where it depends on
            arguments, the constructor sets it.
        clip_format: what a clip must look like to the encoder: the sample rate, the size of the frames. The data module takes it from
            the model; what is None does not matter to the encoder.
        tokenize: how texts become token ids, picklable, for workers of the data loader run it; None for encoders that read no text.
        vocab_size: how many token ids the encoder knows; None where it reads no text.
        tokenizer_json: the tokenizer as a `tokenizer.json` of Hugging Face, which exported folders carry; None where it is of another
            kind.
        hides: the features whose inputs can be hidden in spans (:meth:`hide`), as BEST-RQ wants them.
        hidden_spans: what is hidden, by feature; set by :meth:`hide`.
    """

    provides: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    dims: Mapping[str, int] = MappingProxyType({})
    input_dims: Mapping[str, int] = MappingProxyType({})
    shared_heads: Mapping[str, str] = MappingProxyType({})
    clip_format: ClipFormat = ClipFormat()
    tokenize: TokenizeTexts | None = None
    vocab_size: int | None = None
    tokenizer_json: str | None = None
    hides: ClassVar[tuple[str, ...]] = ()
    hidden_spans: Mapping[str, SpanMasking] = MappingProxyType({})

    @classmethod
    def provided(cls, init_args: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        """Returns what the encoder provides when it is built with these arguments: `provides`, where it does not depend on them.

        Args:
            init_args: arguments of the constructor, as far as they are given.
        """
        return cls.provides

    @property
    def frontends(self) -> Mapping[str, Frontend]:
        """The frozen frontends by the batch field that each reads; one that is trained is not among them."""
        return {}

    def frontend_features(self, name: str, media: Any, padded: bool = False) -> CachedFeatures:
        """Runs a frozen frontend alone. :meth:`forward` takes the result in place of the media.

        Args:
            name: batch field, a key of `frontends`.
            media: that field of a batch.
            padded: let clips that are shorter than the batch see what pads them, as transformers' classes do; a clip is encoded as if it
                were alone otherwise. Frontends for which it makes no difference ignore it.

        Raises:
            KeyError: if there is no such frontend.
        """
        raise KeyError(
            f"{type(self).__name__} has no frozen frontend for {name!r}: it declares `frontends`, or nothing is kept"
        )

    def hide(self, name: str, masking: SpanMasking | None) -> None:
        """Says which spans of the inputs of a feature to hide in training; None for none.

        :meth:`forward` then hides them (`self.hidden_spans[name].hide(values, mask, group)`, `group` the identity of the clips) and returns
        what is to be guessed, the input as it was before anything was hidden or augmented, in `Features.inputs`, and where it did not
        look in `Features.hidden`.

        Raises:
            ValueError: if the encoder cannot.
        """
        if name not in self.hides:
            can = ", ".join(self.hides) or "nothing"
            raise ValueError(f"{type(self).__name__} hides spans of {can}, not of {name!r}")
        others = {key: value for key, value in self.hidden_spans.items() if key != name}
        self.hidden_spans = others if masking is None else {**others, name: masking}

    def stacks(self) -> Sequence[Stack]:
        """Returns the encoder's stacks of layers: what `tune` and FSDP2 address. None by default."""
        return ()

    @abstractmethod
    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Computes the features.

        What stands in padded slots or in rows that are not `present` must change nothing else, and a clip that is not present is still
        a row: its features may be anything finite, and `present` says False.

        Args:
            inputs: what `provides` lists for the names asked for, by the name given there.
            names: which of the provided names to compute.

        Returns:
            the features by name, in the order of the batch.
        """
