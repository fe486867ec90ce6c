"""Text: any transformers encoder, for captions of every type and for event phrases."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from peav import distributed
from peav.encoders.base import Encoder, Stack
from peav.encoders.unreached import freeze_unreached
from peav.fields import check_text_type
from peav.host import known
from peav.masking import masked_mean
from peav.registry import register_encoder
from peav.suggest import suggest
from peav.trust import places_in
from peav.types import CAPTION_TYPES, TRANSCRIPT, Features, TextInput


class Tokenize:
    """Texts to token ids; picklable, so that the data loader's workers can do it.

    Args:
        tokenizer_json: what `tokenizers.Tokenizer.to_str` wrote.
        max_tokens: longer texts are cut, the special tokens kept.
        pad_id: id of the padding token.
    """

    def __init__(self, tokenizer_json: str, max_tokens: int, pad_id: int) -> None:
        self._settings = (tokenizer_json, max_tokens, pad_id)
        self.tokenizer = Tokenizer.from_str(tokenizer_json)
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(pad_id=pad_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenize) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self._settings)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns ids (N, L) int64 and their mask (N, L) bool; L is the longest text's."""
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool)
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings], dtype=torch.int64)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
        return ids, mask


def parse_tokenizer(tokenizer_json: str) -> Tokenizer:
    """Makes a tokenizer of its JSON text.

    Raises:
        ValueError: if it is none.
    """
    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(
            f"the tokenizer is not one that `tokenizers` can read: {str(error).splitlines()[0]}"
        ) from error


def read_tokenizer(source: str) -> str:
    """Returns a tokenizer as JSON text, from that text itself, a `tokenizer.json`, a folder that holds one, or a hub id.

    Raises:
        FileNotFoundError: if `source` looks like a path and is not there.
    """
    if source.lstrip().startswith("{"):
        return source
    path = Path(source)
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if path.suffix == ".json" or path.is_absolute() or source.startswith("."):
        raise FileNotFoundError(
            f"there is no tokenizer at {source!r}. `peav prepare` writes one beside the shards, where the clips have texts: "
            "DATA/tokenizer.json"
        )
    from transformers import AutoTokenizer  # noqa: PLC0415  takes over a second, and is needed late

    # Code that lies beside a tokenizer is never run.
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False).backend_tokenizer.to_str()


def text_sources(captions: Sequence[str], phrases: bool) -> dict[str, tuple[str, ...]]:
    """Returns the features of captions of these types, and of event phrases, with what each reads.

    Raises:
        ValueError: if captions cannot be of a type of that name, there is nothing to read, or transcripts have no head.

    >>> text_sources(["title"], phrases=True)
    {'text_title': ('captions.title',), 'text_event': ('events',)}
    """
    sources: dict[str, tuple[str, ...]] = {f"text_{check_text_type(kind)}": (f"captions.{kind}",) for kind in captions}
    if TRANSCRIPT in captions and "audio" not in captions:
        raise ValueError(
            "transcripts go through the head of audio captions: a text encoder that reads them reads `audio` too"
        )
    if phrases:
        sources["text_event"] = ("events",)
    if not sources:
        raise ValueError("a text encoder with captions=[] and phrases=false reads nothing: name a caption type")
    return sources


#: Embeddings that have no head of their own, or may have none.
_HEADLESS = (f"text_{TRANSCRIPT}", "text_event")


@register_encoder
class TextEncoder(Encoder):
    """Text encoder: any transformers encoder, pretrained or from scratch.

    One network reads captions of all types and event phrases; each embedding has its own head.

    Args:
        tokenizer: path of a `tokenizer.json` or of a folder that holds one, a hub id, or the JSON text itself (what checkpoints keep);
            None for an encoder that reads token ids alone, whose options say `vocab_size`.
        pretrained: path or hub id of a transformers model to start from, in fp32 whatever its file is in; from scratch when None. What
            is saved holds the model's own configuration in its place, and needs it no more.
        architecture: transformers' model type for training from scratch, such as `bert`; `modernbert` by default.
        options: configuration of that architecture, such as `hidden_size`; the vocabulary comes from the tokenizer unless given. A
            `pretrained` model has both of its own.
        layer: read the output of this layer (0 = token embeddings), before any final norm, as PE-AV does; later layers are not kept.
            The last layer, after the final norm, by default.
        max_tokens: longer texts are cut.
        pooling: `cls`, the first token's state, as in PE-AV; or `mean` over the tokens, which learns sooner from scratch.
        activation_checkpointing: compute the layers' activations again in the backward pass instead of keeping them.
        captions: the caption types that it reads, any that the manifests have: `text_TYPE` is the embedding of captions of TYPE.
            `audio`, `video` and `audio_video` by default. `transcript` beside `audio` reads what is said: `text_transcript`, by the head
            of `text_audio`.
        phrases: whether it reads event phrases too: `text_event`. Of two text encoders only one can.
        phrase_head: a caption type, such as `audio`, through whose head event phrases go; their own by default. With it a phrase of
            which no event was ever annotated lies near the captions that name the sound (experiments/frame).

    Raises:
        ValueError: if `phrase_head` is no caption type that it reads; the architecture or one of its options is unknown, or given beside
            `pretrained`; `layer` is out of range, the tokenizer has more tokens than the pretrained model, weights of it are missing, or
            the encoder would read nothing.
    """

    provides = text_sources(CAPTION_TYPES, True)
    shared_heads = MappingProxyType({f"text_{TRANSCRIPT}": "text_audio"})

    @classmethod
    def reaches_outside(cls, init_args: Mapping[str, Any]) -> tuple[str, ...]:
        """`pretrained`, a tokenizer that is not the JSON text itself, and architectures that fetch parts of themselves."""
        found = list(places_in({"options": init_args.get("options")}))
        if init_args.get("pretrained") is not None:
            found.append("pretrained")
        tokenizer = init_args.get("tokenizer")
        if tokenizer is not None and not str(tokenizer).lstrip().startswith("{"):
            found.append("tokenizer")
        if not _is_self_contained(init_args.get("architecture") or DEFAULT_ARCHITECTURE):
            found.append("architecture")
        return tuple(found)

    def __init__(
        self,
        tokenizer: str | None = None,
        pretrained: str | None = None,
        architecture: str | None = None,
        options: dict[str, Any] | None = None,
        layer: int | None = None,
        max_tokens: int = 512,
        pooling: Literal["cls", "mean"] = "cls",
        activation_checkpointing: bool = False,
        captions: list[str] | None = None,
        phrases: bool = True,
        phrase_head: str | None = None,
    ) -> None:
        super().__init__()
        self.provides = text_sources(CAPTION_TYPES if captions is None else captions, phrases)
        if phrase_head is not None:
            head = f"text_{phrase_head}"
            choices = [name.removeprefix("text_") for name in self.provides if name not in _HEADLESS]
            if not phrases or phrase_head not in choices:
                read = f"it reads captions of {', '.join(choices)}" if phrases else "it reads no phrases"
                raise ValueError(f"phrase_head is {phrase_head!r}, but {read}")
            self.shared_heads = MappingProxyType({**type(self).shared_heads, "text_event": head})
        if pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', not {pooling!r}")
        self._tokenizer_json = None if tokenizer is None else read_tokenizer(str(tokenizer))
        implied: dict[str, Any] = {}
        from transformers import AutoModel  # noqa: PLC0415  takes over a second, and is needed late

        self.tokenize: Tokenize | None = None
        if self._tokenizer_json is not None:
            parsed = parse_tokenizer(self._tokenizer_json)
            implied = {"vocab_size": parsed.get_vocab_size()}
            implied |= {name: parsed.token_to_id(token) for name, token in _SPECIAL.items()}
            self.tokenize = Tokenize(self._tokenizer_json, max_tokens, implied["pad_token_id"] or 0)
        self._built_as: dict[str, Any] = {"architecture": architecture or DEFAULT_ARCHITECTURE}
        missing: set[str] = set()
        if pretrained is None:
            config = _scratch_config(architecture or DEFAULT_ARCHITECTURE, options or {}, implied)
            self.model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            _check_alone(pretrained, architecture, options)
            # Code that lies beside a model is never run, and pickles are not opened.
            self.model, report = AutoModel.from_pretrained(
                pretrained, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            missing = set(report["missing_keys"])
            self._built_as = {"pretrained": None, **plain_config(self.model.config)}
            if implied and implied["vocab_size"] > self.model.config.vocab_size:
                raise ValueError(
                    f"the tokenizer has {implied['vocab_size']} tokens, but the pretrained model {pretrained!r} knows "
                    f"{self.model.config.vocab_size}: give `tokenizer` its own"
                )
        if layer is not None:
            read_layer(self.model, layer)
        freeze_unreached(self.model, _two_tokens)
        self.model.train()  # transformers gives a pretrained model in evaluation mode
        absent = sorted(name for name, p in self.model.named_parameters() if name in missing and p.requires_grad)
        if absent:
            raise ValueError(
                f"the pretrained model {pretrained!r} lacks {len(absent)} tensors of a {self.model.config.model_type}: "
                f"{', '.join(absent[:5])}"
            )
        if activation_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.layer, self.pooling = layer, pooling
        self.dims = dict.fromkeys(self.provides, self.model.config.hidden_size)
        self.vocab_size = int(self.model.config.vocab_size)
        self.tokenizer_json = self._tokenizer_json

    def stacks(self) -> Sequence[Stack]:
        """The layers of the transformers model, where peav knows how it keeps them."""
        found = find_layers(self.model)
        return [] if found is None else [Stack(list(getattr(*found)))]

    @classmethod
    def provided(cls, init_args: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        """Returns what it provides for these caption types; see :meth:`Encoder.provided`."""
        captions = init_args.get("captions")
        return text_sources(CAPTION_TYPES if captions is None else captions, init_args.get("phrases", True))

    @property
    def config(self) -> dict[str, Any]:
        """As for every plugin, but with what a path leads to in its place: the tokenizer, and a pretrained model's configuration."""
        config = super().config
        config["init_args"] |= {"tokenizer": self._tokenizer_json, **copy.deepcopy(self._built_as)}
        return config

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes the captions and phrases asked for; what is asked for twice is encoded once."""
        texts: dict[str, TextInput] = {}
        for name in names:
            source = inputs[self.provides[name][0]]
            texts[name] = source.phrases if name == "text_event" else source
        captions = {id(text): text for name, text in texts.items() if name != "text_event"}
        phrases = {id(text): text for text in texts.values() if id(text) not in captions}
        states: dict[int, Tensor] = {}
        for some in _in_calls(list(captions.values()), list(phrases.values())):
            length = max(text.input_ids.shape[1] for text in some)
            ids, mask = (
                torch.cat([F.pad(part, (0, length - part.shape[1])) for part in parts])
                for parts in ([text.input_ids for text in some], [text.mask for text in some])
            )
            parts = self._pool(ids, mask).split([len(text.input_ids) for text in some])
            states.update({id(text): part for text, part in zip(some, parts, strict=True)})
        return {name: Features(states[id(text)], text.present, text.group) for name, text in texts.items()}

    def _pool(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        if not len(input_ids):
            # No row to encode: one padding token keeps the parameters in the graph, then no row is returned.
            return self._pool(input_ids.new_zeros(1, 1), mask.new_ones(1, 1))[:0]
        seen = known(mask)
        mask = mask.clone()
        mask[:, 0] = True  # a row of padding alone would give attention nothing to look at
        # Without a mask nothing asks the device whether it masks anything.
        given = None if seen is not None and bool(seen.all()) else mask
        states = self.model(input_ids=input_ids, attention_mask=given).last_hidden_state
        return states[:, 0] if self.pooling == "cls" else masked_mean(states, mask)


def find_layers(model: nn.Module) -> tuple[nn.Module, str] | None:
    """Returns the module and its attribute that hold a transformers encoder's list of layers; None where peav does not know it."""
    for owner, name in ((model, "layers"), (getattr(model, "encoder", None), "layer")):
        if owner is not None and isinstance(getattr(owner, name, None), nn.ModuleList):
            return owner, name
    return None


def _in_calls(captions: list[TextInput], phrases: list[TextInput]) -> list[list[TextInput]]:
    """Says which texts go through the model together: each call makes the host ask the device whether anything is padded."""
    distinct = [*captions, *phrases]
    if all(text.input_ids.device.type == "cpu" for text in distinct):
        return [[text] for text in distinct]  # a CPU answers at once, and would compute what joining pads
    if distributed.world_size() > 1:
        return [
            some for some in (captions, phrases) if some
        ]  # as many calls on each rank: FSDP2 gathers weights in them
    groups = join_similar([(text.input_ids.shape[0], text.input_ids.shape[1]) for text in distinct])
    return [[distinct[index] for index in group] for group in groups]


def join_similar(shapes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups texts by length, so that few calls encode them all and padding adds no more than half of their tokens.

    Args:
        shapes: rows and length of each.

    Returns:
        which of them go together.

    >>> join_similar([(64, 20), (64, 24), (30, 4), (64, 90)])
    [[3], [1, 0, 2]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(shapes)), key=lambda index: -shapes[index][1]):
        rows, length = shapes[index]
        if groups:
            joined = [shapes[i] for i in groups[-1]] + [(rows, length)]
            padded = joined[0][1] * sum(n for n, _ in joined)
            if padded <= 1.5 * sum(n * size for n, size in joined):
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def read_layer(model: nn.Module, layer: int) -> None:
    """Cuts a transformers encoder after a layer, so that its last hidden state is that layer's output, before any final norm.

    The final norm stays, unused and frozen: it belongs to the checkpoint.

    Raises:
        ValueError: if `layer` is out of range, or the model has no list of layers that peav knows.
    """
    where = find_layers(model)
    if where is None:
        raise ValueError(
            f"{type(model).__name__} has neither `layers` nor `encoder.layer`: its layers cannot be chosen"
        )
    owner, name = where
    found = getattr(owner, name)
    if not 0 <= layer <= len(found):
        raise ValueError(f"layer must lie in 0..{len(found)}, not {layer}")
    setattr(owner, name, found[:layer])
    config: Any = model.config
    config.num_hidden_layers = layer
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[: max(layer, 1)]
    norm = getattr(model, "final_norm", None)
    if isinstance(norm, nn.Module):
        norm.requires_grad_(False)
        norm.register_forward_hook(_pass_by)


def _pass_by(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A forward hook that gives a module's input in place of its output."""
    return inputs[0]


#: What an encoder from scratch is where nothing else is asked for: PE-AV's.
DEFAULT_ARCHITECTURE = "modernbert"

#: Configuration that says where a model came from, not what it computes.
_NOT_OPTIONS = ("model_type", "transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id")

_SPECIAL = {
    "pad_token_id": "[PAD]",
    "cls_token_id": "[CLS]",
    "sep_token_id": "[SEP]",
    "bos_token_id": "[CLS]",
    "eos_token_id": "[SEP]",
}


def _two_tokens(model: nn.Module) -> Tensor:
    ids = torch.zeros(1, 2, dtype=torch.int64)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


def _check_alone(pretrained: str, architecture: str | None, options: Mapping[str, Any] | None) -> None:
    given = [name for name, value in (("architecture", architecture), ("options", options)) if value]
    if given:
        raise ValueError(
            f"{' and '.join(given)} would change nothing of the pretrained model {pretrained!r}, which has its own: leave "
            f"{'it' if len(given) == 1 else 'them'} out, or leave `pretrained` out"
        )


def plain_config(config: Any) -> dict[str, Any]:
    """Returns a transformers configuration as `architecture` and `options`: what of it differs from the architecture's defaults.

    The numbers of the special tokens are always among them, for those of a tokenizer would take their place.
    """
    from transformers import AutoConfig  # noqa: PLC0415  takes over a second, and is needed late

    default = AutoConfig.for_model(config.model_type).to_dict()
    found = json.loads(json.dumps(config.to_dict()))
    always = {"vocab_size", *_SPECIAL}
    options = {
        name: value
        for name, value in found.items()
        if name in default and name not in _NOT_OPTIONS and (name in always or value != default[name])
    }
    return {"architecture": config.model_type, "options": options}


def _is_self_contained(architecture: object) -> bool:
    """Returns whether transformers builds an architecture from its numbers alone, and not out of another model that it looks for."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415  takes over a second, and is needed late

    if not isinstance(architecture, str) or architecture not in CONFIG_MAPPING:
        return isinstance(architecture, str) and architecture.isidentifier()  # the constructor says that there is none
    kind = CONFIG_MAPPING[architecture]
    words = ("backbone", "timm", "pretrained", "architecture")
    borrowed = [key for key in kind().to_dict() if key != "architectures" and any(word in key for word in words)]
    return not kind.sub_configs and not borrowed


def _scratch_config(architecture: str, options: Mapping[str, Any], implied: Mapping[str, Any]) -> Any:
    """Builds a configuration from what a user asks for, and what of the tokenizer's the architecture has (BERT names no CLS token)."""
    from transformers import AutoConfig  # noqa: PLC0415  takes over a second, and is needed late

    try:
        known = AutoConfig.for_model(architecture).to_dict()
    except ValueError as error:
        raise ValueError(
            f"transformers knows no architecture {architecture!r}; `bert` and `modernbert` are two"
        ) from error
    for option in options:
        if option not in known:
            raise ValueError(f"{architecture!r} has no option {option!r}. {suggest(option, known)}")
    given = {name: value for name, value in implied.items() if name in known} | dict(options)
    return AutoConfig.for_model(architecture, **json.loads(json.dumps(given)))
