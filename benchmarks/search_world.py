"""Does `peav search` make sense on the demo's world: the right file for captions, and "nothing fits" for what is not there.

    python benchmarks/search_world.py INDEX runs/demo/world/clips.jsonl

INDEX is of the world's media, made with the demo's model:

    peav index update INDEX runs/demo/world/media --model runs/demo/checkpoints/last.ckpt
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from peav.search import Index
from peav.search.index import FITS_LOGIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("clips", type=Path, help="clips.jsonl of the world")
    options = parser.parse_args()
    world = [json.loads(line) for line in options.clips.read_text().splitlines()]
    with Index.open(options.index) as index:
        captions(index, world)
        absence(index, world)


def captions(index: Index, world: list[dict]) -> None:
    """Audio captions of the test split against every clip of the world, and the moments of events found."""
    test = [clip for clip in world if clip["split"] == "test" and clip["captions"].get("audio")]
    ranks, fits = [], []
    for clip in test:
        found = index.search(clip["captions"]["audio"], top=10, fold=False, when=False)
        stems = [Path(card.file.path).stem for card in found.cards]
        ranks.append(stems.index(clip["id"]) if clip["id"] in stems else 99)
        fits.append(bool(found.fits))
    total = sum(file.windows for file in index.store.catalog.files())
    print(f"{len(test)} audio captions of the test split among {total} windows:")
    for top in (1, 5, 10):
        print(f"  the right file among the first {top}: {np.mean(np.array(ranks) < top):.1%}")
    print(f"  said to fit: {np.mean(fits):.1%}")
    hits = events = 0
    for clip, rank in zip(test, ranks, strict=True):
        if rank >= 5:
            continue
        for event in clip.get("events") or []:
            found = index.search(event["phrase"], top=200, fold=False, when=False)
            if clip["id"] not in {Path(card.file.path).stem for card in found.cards}:
                continue
            card = next(card for card in found.cards if Path(card.file.path).stem == clip["id"])
            best = index._timed([card], [event["phrase"]])[0].moments[0]
            events += 1
            same = [one for one in clip["events"] if one["phrase"] == event["phrase"]]
            hits += best.begin is not None and any(abs(best.begin - one["onset"]) <= 1 for one in same)
    if events:
        print(f"  of {events} events, found among the first 200 files, begin within 1 s: {hits / events:.1%}")


def absence(index: Index, world: list[dict]) -> None:
    """Each sound sought among all files, and among those without it."""
    phrases = sorted({event["phrase"] for clip in world for event in clip.get("events") or []})
    held = {clip["id"]: {event["phrase"] for event in clip.get("events") or []} for clip in world}
    logit = np.log  # of a probability p: log(p / (1 - p))
    there, absent = [], []
    for phrase in phrases:
        found = index.search(phrase, top=len(world), fold=False, when=False, moments=1)
        scores = [(float(logit(card.match / (1 - card.match))), Path(card.file.path).stem) for card in found.cards]
        there.append(scores[0][0] >= FITS_LOGIT)
        best = next(score for score, stem in scores if phrase not in held[stem])
        absent.append(best < FITS_LOGIT)
        print(f"  {phrase:24} best {scores[0][0]:5.2f}, without it {best:5.2f}")
    print(f"sounds said to fit where they are: {sum(there)} of {len(there)}")
    print(f"sounds said not to be there where they are not: {sum(absent)} of {len(absent)}")


if __name__ == "__main__":
    main()
