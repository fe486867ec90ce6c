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

#: Sounds that the world does not have, for its model has never seen most of their words.
OTHERS = [
    *("a violin concerto", "rain on a tin roof", "a helicopter flies past", "people laughing in a bar", "a cat purrs"),
    *("thunder rolls", "typing on a keyboard", "a baby cries", "waves at the beach", "a chainsaw", "fireworks explode"),
    "a man coughs",
]


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
    """Each sound and each caption of the test split sought among all files, and among those that hold none of what it names."""
    held = {clip["id"]: {event["phrase"] for event in clip.get("events") or []} for clip in world}
    phrases = sorted({phrase for some in held.values() for phrase in some})
    test = [clip for clip in world if clip["split"] == "test" and clip["captions"].get("audio") and held[clip["id"]]]
    sounds = [best_logits(index, phrase, {phrase}, held) for phrase in phrases]
    for phrase, (there, absent) in zip(phrases, sounds, strict=True):
        print(f"  {phrase:24} best {there:5.2f}, without it {absent:5.2f}")
    captions = [best_logits(index, clip["captions"]["audio"], held[clip["id"]], held) for clip in test]
    others = [best_logits(index, phrase, set(), held)[0] for phrase in OTHERS]
    print(
        f"bound of the logit: of {len(sounds)} sounds and of {len(captions)} captions said to fit where they are, and said not to be there "
        f"where they are not; of {len(OTHERS)} sounds that the world does not know said not to be there"
    )
    for bound in (*np.arange(-2.0, 1.01, 0.5), FITS_LOGIT):
        shares = [
            np.mean([(there >= bound, absent < bound) for there, absent in some], 0) for some in (sounds, captions)
        ]
        print(
            f"  {bound:5.2f}: sounds {shares[0][0]:4.0%} {shares[0][1]:4.0%}, captions {shares[1][0]:4.0%} {shares[1][1]:4.0%}, "
            f"others {np.mean(np.array(others) < bound):4.0%}" + (" (the bound of peav)" if bound == FITS_LOGIT else "")
        )


def best_logits(index: Index, text: str, named: set[str], held: dict[str, set[str]]) -> tuple[float, float]:
    """Returns the best logit of a text among all files, and among those that hold none of the sounds that it names."""
    found = index.search(text, top=len(held), fold=False, when=False, moments=1)
    scores = [(float(np.log(card.match / (1 - card.match))), Path(card.file.path).stem) for card in found.cards]
    return scores[0][0], next(score for score, stem in scores if not held[stem] & named)


if __name__ == "__main__":
    main()
