"""Scaling curves on the synthetic world: data, pairs, caption sources and audio layers. One command, which goes on where it was.

    python experiments/scaling/run.py runs/demo/data runs/scaling

Each run is experiments/tiny_cpu.yaml with the eight pairs of pretraining, 160 steps of 32 clips, whatever its data, and is evaluated on
the test split, whose captions are the world's own. Forty-two runs, of about a minute of one core each; all variants of a seed come
before the next seed. OUT/results/NAME-SEED.json holds what a run reached; what is there is not run again, and a run that was
interrupted goes on from its checkpoint. Then OUT/curves.md and OUT/curves.png are drawn of what there is. In the background:
`setsid nice -n 19 python experiments/scaling/run.py ... &`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import worlds  # noqa: E402
from curves import write_curves  # noqa: E402

from peav.cli.evaluate_model import ModelChoice  # noqa: E402
from peav.cli.main import main as peav  # noqa: E402
from peav.evaluation import evaluate  # noqa: E402
from peav.evaluation.collect import PassOptions  # noqa: E402

#: The objectives of tiny_cpu.yaml in the order of the paper's table (recipe of PE-AV, pairs 1 to 10).
PAIRS = (
    "audio",
    "audio_video",
    "audio_by_audio_video_caption",
    "both_by_audio_caption",
    "both_by_audio_video_caption",
    "video_by_audio_caption",
    "video",
    "video_by_audio_video_caption",
    "audio_plus_text",
    "video_plus_text",
)

#: Embeddings that are evaluated whether or not they are trained.
EVALUATED = ("audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video")


@dataclass(frozen=True)
class Variant:
    """One point of a curve.

    Attributes:
        name: of its files.
        points: by axis, where it stands there.
        pairs: how many objectives train.
        layers: of the audio encoder.
        world: of the data: a name under which `worlds_of` makes them; "" for the whole world.
        options: further options of `peav fit`.
    """

    name: str
    points: dict[str, float | str] = field(default_factory=dict)
    pairs: int = 8
    layers: int = 2
    world: str = ""
    options: tuple[str, ...] = ()


VARIANTS = (
    Variant("base", {"data": 1.0, "pairs": 8, "audio layers": 2, "captions": "all real"}),
    Variant("pairs_1", {"pairs": 1}, pairs=1),
    Variant("data_8th", {"data": 1 / 8}, world="data_8th"),
    Variant("captions_real", {"captions": "real, a tenth"}, world="captions_real"),
    Variant("captions_synthetic", {"captions": "synthetic"}, world="captions_synthetic"),
    Variant(
        "captions_mixed",
        {"captions": "mixed 1:10"},
        world="captions_mixed",
        options=('--data.origin_weights={"real": 1, "synthetic": 10}',),
    ),
    Variant("pairs_2", {"pairs": 2}, pairs=2),
    Variant("pairs_4", {"pairs": 4}, pairs=4),
    Variant("data_4th", {"data": 1 / 4}, world="data_4th"),
    Variant("layers_4", {"audio layers": 4}, layers=4),
    Variant("layers_1", {"audio layers": 1}, layers=1),
    Variant("data_half", {"data": 1 / 2}, world="data_half"),
    Variant("pairs_10", {"pairs": 10}, pairs=10),
    Variant("layers_8", {"audio layers": 8}, layers=8),
)

WORLDS = {
    "data_8th": worlds.part(1 / 8),
    "data_4th": worlds.part(1 / 4),
    "data_half": worlds.part(1 / 2),
    "captions_real": worlds.captioned(real=True, synthetic=False),
    "captions_synthetic": worlds.captioned(real=False, synthetic=True),
    "captions_mixed": worlds.captioned(real=True, synthetic=True),
}


def fit_words(variant: Variant, data: Path, folder: Path, seed: int, steps: int) -> Iterator[str]:
    """Yields the words of `peav fit` for a run."""
    yield from ("fit", "--config", str(HERE.parent / "tiny_cpu.yaml"), f"--data.data={data}")
    yield f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}"
    yield f"--model.encoders.audio.init_args.num_layers={variant.layers}"
    yield from (f"--model.objectives.{name}=null" for name in (*PAIRS[variant.pairs :], "frame"))
    yield f"--model.extra_embeddings={json.dumps(EVALUATED)}"
    yield from (f"--seed_everything={seed}", f"--data.seed={seed}")
    yield from (f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0")
    yield from (f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false", "--trainer.logger=false")
    yield "--save.every_minutes=2"
    yield from variant.options
    last = folder / "checkpoints/last.ckpt"
    if last.is_file():
        yield f"--ckpt_path={last}"


def run(variant: Variant, seed: int, data: Path, out: Path, steps: int) -> dict[str, object]:
    """Trains and evaluates a variant, unless it was; returns its result.

    Raises:
        SystemExit: if the training ends otherwise than by coming to its end.
    """
    result = out / "results" / f"{variant.name}-{seed}.json"
    if result.is_file():
        found: dict[str, object] = json.loads(result.read_text(encoding="utf-8"))
        return found
    own = data
    if variant.world:
        own = worlds.write_world(data, out / "worlds" / variant.world, WORLDS[variant.world])
    folder = out / "runs" / f"{variant.name}-{seed}"
    print(f"{variant.name}, seed {seed}", flush=True)
    if status := peav(list(fit_words(variant, own, folder, seed, steps))):
        raise SystemExit(status)
    model, _ = ModelChoice(str(folder / "checkpoints/last.ckpt"), device="cpu").open()
    measured = evaluate(model, data, options=PassOptions(num_workers=0, progress=False))
    reached = {name: dict(direction.plain) for name, direction in measured.directions.items()}
    found = {"variant": variant.name, "points": variant.points, "seed": seed, "steps": steps, "directions": reached}
    result.parent.mkdir(parents=True, exist_ok=True)
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    partial.rename(result)
    shutil.rmtree(folder)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared synthetic world: peav synth, then peav prepare")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=[v.name for v in VARIANTS], help="some variants")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160, help="optimizer steps of a run")
    args = parser.parse_args(words)
    results = []
    for seed in args.seeds:
        for variant in VARIANTS:
            if not args.only or variant.name in args.only:
                results.append(run(variant, seed, args.data, args.out, args.steps))
                write_curves(results, args.out)
    print(f"wrote {args.out / 'curves.md'}, {args.out / 'curves.png'}")


if __name__ == "__main__":
    main()
