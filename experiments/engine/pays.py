"""Does the caption engine pay? Trains on the demo's clips with the captions of nine tenths hidden, or written by the engine.

    python experiments/engine/pays.py runs/demo/data runs/engine/pays                three seeds, 602 steps each
    python experiments/engine/pays.py runs/demo/data runs/engine/pays --seeds 1      one of them

| variant | training clips and their captions |
|---|---|
| tenth | all clips; those of a tenth have the captions that the world wrote, the others have none |
| alone | that tenth, with those captions; no other clip |
| engine | all clips, with the engine's captions |
| mixed | all clips; the world's captions for that tenth, the engine's for the others |
| second | as mixed, by an engine whose model is that of `mixed`: the paper's second stage |
| all | all clips, with the world's captions |

The engine is `peav caption` with tagger.yaml: the model of `alone` with the same seed as PEAVTagger, and the template writer. All variants
train for the same number of steps, without events and transcripts (those would name what captions hide); what differs is the
captions alone. Each is evaluated on the test clips, whose combinations are not in training. What was interrupted goes on, what is done
stays; `pays.md` holds the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.labels import Labels, write_labels
from peav.data.manifests.manifest import iter_manifest, manifest_path, save_manifest

HERE = Path(__file__).parent
PEAV = [sys.executable, "-m", "peav.cli.main"]
SPLITS = ("train", "validation", "test")
VARIANTS = ("tenth", "alone", "engine", "mixed", "all", "second")

#: Of a variant with captions of the engine, the variant whose model the engine has.
TAGGERS = {"engine": "alone", "mixed": "alone", "second": "mixed"}

#: What is tabulated: directions of retrieval.
DIRECTIONS = ("text_audio->audio", "text_video->video", "audio->text_audio", "video->text_video", "audio->video")


def in_tenth(clip: Clip) -> bool:
    """Returns whether a clip is among the tenth whose captions are known: by its id alone."""
    return bytes_group(clip.id.encode()) % 10 == 0


def write_data(source: Path, out: Path, change: Callable[[Clip], Clip | None]) -> None:
    """Writes a copy of a prepared folder whose training clips have other captions, and no clip events or transcripts."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    kept = shutil.ignore_patterns("manifest", "engine", "provenance")
    shutil.copytree(source, partial, copy_function=os.link, ignore=kept)
    for split in SPLITS:
        clips = (clip for _, clip in iter_manifest(manifest_path(source, split)))
        plain = (replace(clip, events=None, vocabulary="", transcript=None, segments=()) for clip in clips)
        changed = (change(clip) if split == "train" else clip for clip in plain)
        save_manifest(partial, split, (clip for clip in changed if clip is not None))
    write_labels(partial, Labels())
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def of_origin(clip: Clip, origin: str) -> Clip:
    """Leaves of the captions of a clip those of an origin."""
    held = {kind: tuple(c for c in items if c.origin == origin) for kind, items in clip.captions.items()}
    return replace(clip, captions={kind: items for kind, items in held.items() if items})


def mixed(clip: Clip) -> Clip:
    """Leaves of the captions of a clip what the world wrote if it is in the tenth, else what the engine wrote."""
    return of_origin(clip, "real" if in_tenth(clip) else "synthetic")


#: What becomes of a training clip, in the variants that need no engine; None leaves it out.
CHANGES: dict[str, Callable[[Clip], Clip | None]] = {
    "tenth": lambda clip: clip if in_tenth(clip) else replace(clip, captions={}),
    "alone": lambda clip: clip if in_tenth(clip) else None,
    "all": lambda clip: clip,
}


class Study:
    """The runs of the study, each made when its result is not there.

    Args:
        source: the demo's data.
        out: of everything.
        steps: of each training.
    """

    def __init__(self, source: Path, out: Path, steps: int) -> None:
        self.source, self.out, self.steps = source, out, steps
        self._one_writes = threading.RLock()

    def data(self, variant: str, seed: int) -> Path:
        """Returns the data of a variant; those with captions of the engine are its own for each seed."""
        change: Callable[[Clip], Clip | None]
        if variant in TAGGERS:
            folder, source = self.out / "data" / f"{variant}-{seed}", self.captioned(TAGGERS[variant], seed)
            change = (lambda clip: of_origin(clip, "synthetic")) if variant == "engine" else mixed
        else:
            folder, source, change = self.out / "data" / variant, self.source, CHANGES[variant]
        with self._one_writes:
            if not folder.is_dir():
                write_data(source, folder, change)
        return folder

    def captioned(self, tagger: str, seed: int) -> Path:
        """Returns the data of `tenth` with captions for every clip by an engine with the model of a variant, real ones kept beside them."""
        folder = self.out / "data" / f"captioned-by-{tagger}-{seed}"
        with self._one_writes:
            if not folder.is_dir():
                write_data(self.data("tenth", seed), folder, lambda clip: clip)
        if not (folder / "engine" / "report.html").is_file():
            model = self.run(tagger, seed).parent / "checkpoints/last.ckpt"
            # All captions count here, however alike they begin: what they are worth is the question.
            options = ["--set", f"tags.model={model}", "--set", "measures=null", "--max_opening_share", "1"]
            self._call(folder.parent, "caption", str(folder), "--config", str(HERE / "tagger.yaml"), *options)
        return folder

    def run(self, variant: str, seed: int) -> Path:
        """Trains and evaluates a variant; returns its evaluation.json."""
        folder = self.out / f"{variant}-{seed}"
        result = folder / "evaluation.json"
        if result.is_file():
            return result
        data, last = self.data(variant, seed), folder / "checkpoints/last.ckpt"
        print(f"{variant}, seed {seed}", flush=True)
        options = [f"--data.data={data}", f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=-1"]
        options += [f"--trainer.max_steps={self.steps}"]
        options += [f"--model.encoders.text.init_args.tokenizer={self.source / 'tokenizer.json'}"]
        options += [f"--seed_everything={seed}", f"--data.seed={seed}", "--model.objectives.frame=null"]
        options += ["--trainer.limit_val_batches=0"]
        options += [f"--ckpt_path={last}"] if last.is_file() else []
        self._call(folder, "fit", "--config", str(HERE.parent / "tiny_cpu.yaml"), *options)
        self._call(folder, "evaluate", str(last), str(self.data("all", seed)), "--out", str(folder))
        return result

    def _call(self, folder: Path, *command: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            done = subprocess.run([*PEAV, *command], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"peav {command[0]} failed: {folder / 'log.txt'}")

    def named(self, tagger: str, seed: int) -> tuple[int, int] | None:
        """Returns how many sounds an engine named, and how many of them are among the events of their clips; None before it ran."""
        path = self.out / "data" / f"captioned-by-{tagger}-{seed}" / "provenance" / "train.jsonl"
        if not path.is_file():
            return None
        events = {
            clip.id: {e.phrase for e in clip.events or ()}
            for _, clip in iter_manifest(manifest_path(self.source, "train"))
        }
        total = right = 0
        for line in path.open(encoding="utf-8"):
            item = json.loads(line)
            phrases = {tag[0] for tag in item["scores"].get("tags", ())} if item["type"] == "audio" else set()
            named = {phrase for phrase in phrases if phrase in item["text"]}
            total += len(named)
            right += len(named & events[item["id"]])
        return total, right

    def table(self, seeds: int) -> Iterator[str]:
        """Yields the lines of the table: the median over seeds, and the range."""
        yield "| captions | runs | " + " | ".join(f"{name}, R@1" for name in DIRECTIONS) + " | mean |"
        yield "|---|---:|" + "---:|" * (len(DIRECTIONS) + 1)
        for variant in VARIANTS:
            files = [self.out / f"{variant}-{seed}" / "evaluation.json" for seed in range(seeds)]
            found = [json.loads(path.read_text())["directions"] for path in files if path.is_file()]
            values = [[100 * item[name]["plain"]["R@1"] for item in found] for name in DIRECTIONS]
            values.append([statistics.mean(column) for column in zip(*values, strict=True)])
            cells = [f"{statistics.median(v):.1f} [{min(v):.1f} to {max(v):.1f}]" if v else "" for v in values]
            yield f"| {variant} | {len(found)} | " + " | ".join(cells) + " |"
        for tagger, seed in itertools.product(dict.fromkeys(TAGGERS.values()), range(seeds)):
            if counts := self.named(tagger, seed):
                share = f"{counts[1] / max(counts[0], 1):.0%} of them among the events of their clips"
                yield f"\nSeed {seed}: the engine with the model of {tagger} named {counts[0]:,} sounds, {share}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the data of `make demo`")
    parser.add_argument("out", type=Path, help="folder of everything")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant")
    parser.add_argument("--steps", type=int, default=602, help="of each run")
    parser.add_argument("--workers", type=int, default=2, help="seeds that run beside each other, each with one thread")
    options = parser.parse_args()
    study = Study(options.source.resolve(), options.out.resolve(), options.steps)

    def variants(seed: int) -> None:
        for variant in VARIANTS:
            study.run(variant, seed)
            (study.out / "pays.md").write_text("\n".join(study.table(options.seeds)) + "\n")

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(variants, range(options.seeds)))
    print("\n".join(study.table(options.seeds)))


if __name__ == "__main__":
    main()
