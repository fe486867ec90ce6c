"""Writes copies of the demo's data with less in their labels: `weak`, when nothing is said of when; `unspoken`, without some phrases.

    python experiments/frame/labels.py runs/demo/data runs/demo/frame/data

`OUT/weak` says which sounds are in a clip, never when. `OUT/unspoken` says nothing of the phrases of `UNSPOKEN` in training and
validation; its test split knows of them alone, so that what is evaluated there was never named in training, but in captions. The shards
are links to those of the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peav.data.manifests.clip import Clip
from peav.data.manifests.labels import Labels, write_labels
from peav.data.manifests.manifest import iter_manifest, manifest_path, save_manifest
from peav.data.manifests.records import Event

#: One kind of sound of each sort: an animal, a thing, an instrument, a voice.
UNSPOKEN = ("a dog barking", "a siren wailing", "a violin playing", "a woman speaking")

SPLITS = ("train", "validation", "test")


def write_variant(data: Path, out: Path, change: Callable[[str, Clip], Clip], labels: Labels) -> None:
    """Writes a copy of a prepared folder with other labels.

    Args:
        data: the prepared folder.
        out: of the copy; what is there is replaced.
        change: from a split and a clip to the clip as it shall be.
        labels: what `labels.json` shall hold.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(data, out, copy_function=os.link, ignore=shutil.ignore_patterns("manifest"))
    for split in SPLITS:
        save_manifest(out, split, (change(split, clip) for _, clip in iter_manifest(manifest_path(data, split))))
    write_labels(out, labels)


def weak(split: str, clip: Clip) -> Clip:
    """Leaves of a clip's events the phrases; those of the test split stay as they are."""
    if split == "test" or clip.events is None:
        return clip
    return replace(clip, events=tuple(Event(phrase) for phrase in dict.fromkeys(e.phrase for e in clip.events)))


def unspoken(split: str, clip: Clip) -> Clip:
    """Leaves the phrases of `UNSPOKEN` out, or in the test split all others."""
    if clip.events is None:
        return clip
    wanted = split == "test"
    events = tuple(event for event in clip.events if (event.phrase in UNSPOKEN) == wanted)
    return replace(clip, events=events, vocabulary="unspoken" if wanted else "spoken")


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    phrases = {
        event.phrase
        for split in SPLITS
        for _, clip in iter_manifest(manifest_path(args.data, split))
        for event in clip.events or ()
    }
    if missing := set(UNSPOKEN) - phrases:
        raise SystemExit(f"{args.data} has no event {min(missing)!r}: is it the demo's data?")
    vocabularies = {"spoken": tuple(sorted(phrases - set(UNSPOKEN))), "unspoken": UNSPOKEN}
    write_variant(args.data, args.out / "weak", weak, Labels())
    write_variant(args.data, args.out / "unspoken", unspoken, Labels(vocabularies))
    print(f"wrote {args.out / 'weak'} and {args.out / 'unspoken'}")


if __name__ == "__main__":
    main()
