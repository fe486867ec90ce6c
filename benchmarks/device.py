"""What one GPU makes of a training step, beside transformers' classes and open_clip's loss: `python benchmarks/device.py --out DIR`.

One run of under eight minutes, everything in turn in one process, bf16 autocast, random weights of the released sizes, clips of ten
seconds of which half last six. Per size, from cached features and from media: milliseconds
of a step (forward, ten pairs, backward, AdamW), clips a second, peak memory, and the share of the card's dense bf16 peak that the matrix
products of the step make up (`torch.utils.flop_counter`: products, convolutions and attention; nothing else counts).

The peer is `PeAudioVideoEncoder`, ModernBERT and contrastive heads of transformers, with open_clip's SigLipLoss for each pair
(`pip install -e '.[bench]'`); from features its frontends are left out as ours are. Further: the share of the objectives in our step and
how often it makes the host wait; the pair loss alone at 8,192 and 32,768 clips; clips a second of embedding from media; and clips a
second of the loader. What runs out of memory, or of time, is written as such.

`--tiny` runs all of it on a CPU at a size that says nothing, in a test. Writes device.json and device.md into DIR.
"""

from __future__ import annotations

import gc
import inspect
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from measure import peak_megabytes, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, PeAudioVideoConfig
from transformers.models.pe_audio_video.modeling_pe_audio_video import PeAudioVideoContrastiveHead, PeAudioVideoEncoder

from peav import registry
from peav.checkpoints import TEN_PAIRS, ModelSpec, huggingface
from peav.checkpoints.parts import init_args
from peav.checkpoints.presets import preset
from peav.embedding_model import EmbeddingModel
from peav.masking import lengths_to_mask
from peav.objectives import PairObjective
from peav.objectives.functional import PairMask, sigmoid_pair_loss
from peav.training.losses import evaluate_objectives, with_gradients
from peav.types import AudioInput, Batch, CachedFeatures, TextInput, VideoInput

#: Dense bf16 operations a second by a part of the card's name, of its maker's data sheets (SXM where there are two).
PEAKS = {"H200": 989.4e12, "H100": 989.4e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165.2e12}

#: Seconds after which no further part is begun.
BUDGET = 420.0


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        sizes: of the models.
        batches: clips a step, from features and from media.
        seconds: of the long and the short clips.
        frames: of video.
        tokens: of a caption.
        losses: batches of the pair loss alone.
        repeats: of every measurement.
    """

    sizes: tuple[str, ...] = ("small", "base")
    batches: Mapping[str, int] = field(default_factory=lambda: {"features": 256, "media": 32})
    seconds: tuple[float, float] = (10.0, 6.0)
    frames: int = 16
    tokens: int = 32
    losses: tuple[int, ...] = (8192, 32768)
    repeats: int = 5


FULL = Scale()
TINY = Scale(("tiny",), {"features": 4, "media": 2}, (0.4, 0.2), 2, 6, (64,), 1)


def spec_of(size: str) -> ModelSpec:
    """The released architecture with 16 frames; `tiny` is made for a CPU."""
    if size != "tiny":
        return complete(preset(f"pe-av-{size}-16-frame"))
    whole = complete(preset("pe-av-small-16-frame"))
    encoders = {name: {**e, "init_args": dict(e["init_args"])} for name, e in whole.encoders.items()}
    common = {"dim": 32, "num_layers": 1, "num_heads": 2, "mlp_dim": 64}
    encoders["audio"]["init_args"] |= {**common, "codec_hidden_size": 2, "codec_dim": 8}
    frame = {
        "img_size": 28,
        "embed_dim": 32,
        "depth": 1,
        "num_heads": 2,
        "attn_pool_num_heads": 2,
        "ref_feat_shape": [2, 2],
    }
    encoders["video"]["init_args"] |= {**common, "frame_dim": 24, "frame_options": frame}
    encoders["audio_video"]["init_args"] |= {**common, "audio_dim": 32, "video_dim": 32}
    text = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text |= {
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    encoders["text"]["init_args"] |= {"options": text, "layer": 2}
    encoders["plus_text"]["init_args"] |= {"audio_dim": 32, "video_dim": 32, "text_dim": 48}
    media = replace(whole.media, frame_size=28)
    return replace(whole, encoders=encoders, embedding_dim=48, media=media)


def complete(spec: ModelSpec) -> ModelSpec:
    """Writes the encoders' defaults out."""
    encoders: dict[str, Mapping[str, Any]] = {}
    for name, encoder in spec.encoders.items():
        parameters = inspect.signature(registry.encoders.resolve(encoder["class_path"])).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        encoders[name] = {**encoder, "init_args": {**defaults, **encoder["init_args"]}}
    return replace(spec, encoders=encoders)


def make_batch(spec: ModelSpec, scale: Scale, source: str, device: str) -> Batch:
    """Random clips, every second one shorter; from media, or what frontends would make of them."""
    clips, rate = scale.batches[source], spec.media.sample_rate
    generator = torch.Generator().manual_seed(0)
    rows, there = torch.arange(clips), torch.ones(clips, dtype=torch.bool)
    lengths = torch.tensor([int(scale.seconds[row % 2] * rate) for row in range(clips)])
    frames_mask = torch.ones(clips, scale.frames, dtype=torch.bool)
    audio: AudioInput | CachedFeatures
    video: VideoInput | CachedFeatures
    if source == "media":
        mask = lengths_to_mask(lengths)
        audio = AudioInput(torch.randn(mask.shape, generator=generator) * 0.1 * mask, mask, there, rows, rate)
        shape = (clips, scale.frames, 3, spec.media.frame_size, spec.media.frame_size)
        frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        video = VideoInput(frames, frames_mask, there, rows, torch.full((clips,), 0.6))
    else:
        hop = math.prod(argument(spec, "audio", "codec_ratios"))
        mask = lengths_to_mask(-(-lengths // hop))
        audio = CachedFeatures(
            torch.randn(*mask.shape, argument(spec, "audio", "codec_dim"), generator=generator),
            mask,
            there,
            rows,
            hop / rate,
        )
        vectors = torch.randn(clips, scale.frames, argument(spec, "video", "frame_dim"), generator=generator)
        video = CachedFeatures(F.normalize(vectors, dim=-1), frames_mask, there, rows, torch.full((clips,), 0.6))
    vocabulary = argument(spec, "text", "options")["vocab_size"]
    captions = {}
    for index, kind in enumerate(("audio", "video", "audio_video")):
        token_mask = lengths_to_mask(rows % (scale.tokens // 2) + scale.tokens // 2 + 1, scale.tokens)
        ids = torch.randint(5, vocabulary, token_mask.shape, generator=generator) * token_mask
        captions[kind] = TextInput(ids, token_mask, there, rows + clips * index)
    return Batch(tuple(map(str, rows.tolist())), audio, video, captions).to(device)


def argument(spec: ModelSpec, encoder: str, name: str) -> Any:
    """An argument of an encoder, or its default."""
    return init_args(spec, encoder)[name]


class Ours:
    """A training step as the LightningModule takes it, without logging."""

    def __init__(self, spec: ModelSpec, device: str) -> None:
        with torch.device(device):
            self.model = EmbeddingModel.from_spec(spec)
            self.objectives = {f"{a}:{b}": PairObjective(a, b) for a, b in TEN_PAIRS}
        parameters = [p for module in (self.model, *self.objectives.values()) for p in module.parameters()]
        self.optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], fused=device == "cuda")
        self.device = device

    def embed(self, batch: Batch) -> Any:
        with torch.autocast(self.device, torch.bfloat16):
            return self.model.embed_batch(batch, list(self.model.heads))

    def backward(self, embeddings: Any) -> None:
        losses = evaluate_objectives(self.objectives, embeddings, {}, dict.fromkeys(self.objectives, 1.0))
        pairs = [(embeddings[name].pooled, gradient) for name, gradient in losses.pooled.items()]
        with_gradients(losses.total, [*pairs, *losses.parameters]).backward()

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        self.backward(self.embed(batch))
        self.optimizer.step()


class FromFeatures(nn.Module):
    """Stands where transformers' frame encoder does, and hands on what it would have made."""

    def forward(self, features: Tensor) -> Any:
        return SimpleNamespace(logits=features)


class Theirs:
    """transformers' encoders and heads, and open_clip's loss of each pair, as they are published."""

    def __init__(self, spec: ModelSpec, device: str, source: str) -> None:
        config = PeAudioVideoConfig(**huggingface.config_of(spec))
        joint, width = config.audio_video_config, config.text_config.hidden_size
        with torch.device(device):
            self.encoder = PeAudioVideoEncoder(joint)
            self.text = AutoModel.from_config(config.text_config)
            widths = {"audio": joint.audio_config.hidden_size, "video": joint.video_config.hidden_size}
            widths |= {
                "audio_video": joint.hidden_size,
                **{f"text_{k}": width for k in ("audio", "video", "audio_video")},
            }
            widths |= {"audio_plus_text": widths["audio"] + width, "video_plus_text": widths["video"] + width}
            self.heads = nn.ModuleDict({name: PeAudioVideoContrastiveHead(dim, width) for name, dim in widths.items()})
            self.scores = nn.ParameterList(
                nn.Parameter(torch.tensor([v])) for _ in TEN_PAIRS for v in (math.log(10), -10.0)
            )
        self.hop = joint.audio_config.dac_config.hop_length
        audio, video = self.encoder.embedder.audio_encoder.embedder, self.encoder.embedder.video_encoder.embedder
        if source == "features":
            audio.dac_encoder, audio.bottleneck, video.vision_model = nn.Identity(), nn.Identity(), FromFeatures()
        for frozen in (audio.dac_encoder, audio.bottleneck, video.vision_model):
            frozen.requires_grad_(False)
        parameters = [p for m in (self.encoder, self.text, self.heads, self.scores) for p in m.parameters()]
        self.optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], fused=device == "cuda")
        self.device, self.loss = device, peer_loss()[1]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        media: Any = batch
        with torch.autocast(self.device, torch.bfloat16):
            if isinstance(media.audio, CachedFeatures):
                values, frames = media.audio.values.mT, media.video.values
                mask = media.audio.mask.repeat_interleave(self.hop, 1)
            else:
                values = F.pad(media.audio.samples, (0, -media.audio.samples.shape[1] % self.hop)).unsqueeze(1)
                mask = F.pad(media.audio.mask, (0, -media.audio.mask.shape[1] % self.hop))
                frames = media.video.frames / 127.5 - 1
            found = self.encoder(values, frames, padding_mask=mask, padding_mask_videos=media.video.mask)
            ids, text_mask = (
                torch.cat([getattr(t, key) for t in batch.captions.values()]) for key in ("input_ids", "mask")
            )
            texts = self.text(input_ids=ids, attention_mask=text_mask).last_hidden_state[:, 0].split(len(batch))
            pooled = {"audio": found.audio_model_output.pooler_output, "video": found.video_model_output.pooler_output}
            pooled |= {"audio_video": found.pooler_output}
            pooled |= {f"text_{kind}": text for kind, text in zip(batch.captions, texts, strict=True)}
            pooled["audio_plus_text"] = torch.cat((pooled["audio"], pooled["text_video"]), -1)
            pooled["video_plus_text"] = torch.cat((pooled["video"], pooled["text_audio"]), -1)
            return {name: F.normalize(head(pooled[name]), dim=-1) for name, head in self.heads.items()}

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        embeddings = {name: value.float() for name, value in self.embed(batch).items()}
        total = sum(
            self.loss(embeddings[a], embeddings[b], self.scores[2 * i].exp(), self.scores[2 * i + 1])
            for i, (a, b) in enumerate(TEN_PAIRS)
        )
        total.backward()  # type: ignore[union-attr]
        self.optimizer.step()


def peer_loss() -> tuple[str, Callable[..., Tensor]]:
    """Returns open_clip's SigLipLoss; where it is not installed the formula that it computes, under a name that says so."""
    try:
        import open_clip
        from open_clip.loss import SigLipLoss
    except ImportError:

        def formula(left: Tensor, right: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            logits = scale * left @ right.T + bias
            signs = 2 * torch.eye(len(left), device=left.device) - 1
            return -F.logsigmoid(signs * logits).sum() / len(left)

        return "SigLIP's formula (open_clip is not installed)", formula
    return f"open_clip {open_clip.__version__}", SigLipLoss()


def operations(function: Callable[[], object]) -> int:
    """Floating point operations of the matrix products, convolutions and attention of a call."""
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function()
    return counter.get_total_flops()


def waits(function: Callable[[], object], device: str) -> int | None:
    """How often a call makes the host wait, as CUDA counts it; None without CUDA."""
    if device != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


class Report:
    """Rows of what was found, and the time that is left.

    Args:
        device: `cuda` or `cpu`.
    """

    def __init__(self, device: str) -> None:
        self.device, self.begun = device, time.perf_counter()
        self.card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        self.peak = next((peak for name, peak in PEAKS.items() if name in self.card), None)
        self.rows: list[dict[str, Any]] = []

    def measure(self, what: str, who: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Runs one part; memory that runs out is a result."""
        spent = time.perf_counter() - self.begun
        row: dict[str, Any] = {"what": what, "who": who}
        if spent > BUDGET:
            row["note"] = "not measured: no time was left"
        else:
            try:
                row |= make()
            except torch.OutOfMemoryError:
                row["note"] = "out of memory"
        self.rows.append(row)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def write(self, folder: Path) -> None:
        """Writes device.json and device.md."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {
            "card": self.card,
            "torch": torch.__version__,
            "peer_loss": peer_loss()[0],
            "seconds": round(time.perf_counter() - self.begun, 1),
        }
        (folder / "device.json").write_text(
            json.dumps({**found, "peak_bf16": self.peak, "rows": self.rows}, indent=1) + "\n"
        )
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = [
            f"{self.card}, torch {torch.__version__}, peer's loss: {found['peer_loss']}; {found['seconds']} s in all",
            "",
            "| " + " | ".join(columns) + " |",
        ]
        lines += ["|---|---|" + "---:|" * (len(columns) - 2)]
        lines += ["| " + " | ".join(shown(row.get(key)) for key in columns) + " |" for row in self.rows]
        (folder / "device.md").write_text("\n".join(lines) + "\n")


def shown(value: Any) -> str:
    """A value as a cell."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def time_step(report: Report, scale: Scale, size: str, source: str, who: str) -> dict[str, Any]:
    """A training step of one of the two."""
    spec = spec_of(size)
    batch = make_batch(spec, scale, source, report.device)
    trained: Ours | Theirs = Ours(spec, report.device) if who == "peav" else Theirs(spec, report.device, source)

    def step() -> None:
        trained.step(batch)

    step()
    (wall, _) = timed({"step": step}, scale.repeats, report.device)["step"]
    done = operations(step)
    row: dict[str, Any] = {"ms": 1000 * wall, "clips/s": len(batch) / wall, "MB": peak_megabytes(step, report.device)}
    row |= {"TFLOP": done / 1e12, "of peak": done / wall / report.peak if report.peak else None}
    if isinstance(trained, Ours):
        with torch.no_grad():
            embeddings = trained.embed(batch)
        again = {n: replace(e, pooled=e.pooled.detach().requires_grad_()) for n, e in embeddings.items()}
        (alone, _) = timed({"objectives": lambda: trained.backward(again)}, scale.repeats, report.device)["objectives"]
        row |= {"objectives": alone / wall, "waits": waits(step, report.device)}
    return row


def time_loss(report: Report, scale: Scale, clips: int, who: str, dim: int = 1024) -> dict[str, Any]:
    """One pair loss, forward and backward."""
    their_loss = peer_loss()[1]
    left, right = (F.normalize(torch.randn(clips, dim, device=report.device), dim=1).requires_grad_() for _ in range(2))
    log_scale, bias = (torch.tensor([v], device=report.device, requires_grad=True) for v in (math.log(10), -10.0))
    there, rows = torch.ones(clips, dtype=torch.bool), torch.arange(clips)

    def run() -> None:
        if who == "peav":
            mask = PairMask(there, there, (rows, rows), (rows, rows), device=left.device)
            loss = sigmoid_pair_loss(left, right, log_scale, bias, mask=mask)
        else:
            loss = their_loss(left, right, log_scale.exp(), bias)
        for leaf in (left, right, log_scale, bias):
            leaf.grad = None
        loss.backward()

    (wall, _) = timed({"loss": run}, scale.repeats, report.device)["loss"]
    return {"ms": 1000 * wall, "MB": peak_megabytes(run, report.device)}


def time_embedding(report: Report, scale: Scale, size: str, who: str) -> dict[str, Any]:
    """All eight embeddings of clips, from media, without gradient."""
    spec = spec_of(size)
    batch = make_batch(spec, scale, "media", report.device)
    model: Ours | Theirs = Ours(spec, report.device) if who == "peav" else Theirs(spec, report.device, "media")

    @torch.inference_mode()
    def run() -> None:
        model.embed(batch)

    (wall, _) = timed({"embed": run}, scale.repeats, report.device)["embed"]
    return {"ms": 1000 * wall, "clips/s": len(batch) / wall, "MB": peak_megabytes(run, report.device)}


def time_loader(clips: int, workers: int) -> dict[str, Any]:
    """Clips a second that the loader decodes, of a synthetic world: what a step from media must be fed with."""
    from peav.data import ClipDataset, ClipLoader, Population, TrainingPlan
    from peav.data.packing.prepare import prepare
    from peav.data.synthetic import synthesize

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        synthesize(folder / "world", clips, seed=0, workers=max(1, workers))
        prepare(folder / "world", folder / "data", workers=max(1, workers), progress=False)
        dataset = ClipDataset(folder / "data", "train", ["audio", "video"], 48000, 16, frame_size=336)
        plan = TrainingPlan(Population.of(dataset.manifest.index), 8, 0)
        loader = ClipLoader(dataset, plan, None, num_workers=workers)
        for _ in loader:  # workers start, files come into memory
            pass
        begun, seen = time.perf_counter(), 0
        for batch in loader:
            seen += len(batch)
        wall = time.perf_counter() - begun
        loader.close()
    return {"ms": 1000 * wall, "clips/s": seen / wall}


def main(out: str = "runs/device", tiny: bool = False) -> None:
    """Measures everything and writes the report.

    Args:
        out: folder of the report.
        tiny: at a size for a CPU.
    """
    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    if device == "cpu" and not tiny:
        raise SystemExit("there is no GPU: --tiny runs this on a CPU, to see that it runs")
    report, scale = Report(device), TINY if tiny else FULL
    for size in scale.sizes:
        for source in ("features", "media"):
            for who in ("transformers", "peav"):
                part = partial(time_step, report, scale, size, source, who)
                report.measure(f"step, {size}, {source}, {scale.batches[source]} clips", who, part)
    for clips in scale.losses:
        for who in (peer_loss()[0], "peav"):
            report.measure(f"pair loss, {clips}", who, partial(time_loss, report, scale, clips, who))
    for who in ("transformers", "peav"):
        part = partial(time_embedding, report, scale, scale.sizes[0], who)
        report.measure(f"embedding, {scale.sizes[0]}", who, part)
    report.measure("loader", "peav", partial(time_loader, 24 if tiny else 64, 0 if tiny else 8))
    report.write(Path(out))
    print((Path(out) / "device.md").read_text())


if __name__ == "__main__":
    auto_cli(main)
