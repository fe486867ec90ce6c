"""Chooses recordings of `make real` for the caption engine, and hides what their files say they are.

    python experiments/engine/recordings.py runs/real/world runs/engine/world
    python experiments/engine/recordings.py runs/engine/world --written runs/engine/data

The first line writes a folder for `peav prepare`: some recordings of each kind (people in ten languages, things' own sounds, named
samples, instruments), by a hash of their ids, without captions, transcripts, domains and names. What was taken away stands in
truth.jsonl. The second line, after `peav caption`, prints a table of forty of them: what the engine wrote beside what the files say they
are, for somebody to judge.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Recordings of each kind: English speech, speech in other languages, things' own sounds, named samples, instruments.
NUMBERS = {"english": 40, "other language": 40, "thing": 60, "sample": 40, "instrument": 60}
#: Of them, those of the table.
SHOWN = {"english": 6, "other language": 6, "thing": 12, "sample": 6, "instrument": 10}


def kind_of(clip: dict[str, Any]) -> str:
    """Returns which kind of recording a clip of experiments/real/clips.py is."""
    if clip["domain"] == "speech":
        return "english" if clip["id"].endswith("/en") else "other language"
    return {"tuxpaint-stamps": "thing", "sonic-pi-samples": "sample"}.get(clip["dataset"], "instrument")


def chosen(clips: list[dict[str, Any]], numbers: dict[str, int]) -> list[dict[str, Any]]:
    """Returns so many clips of each kind, by a hash of their ids."""
    held = []
    for kind, number in numbers.items():
        own = [clip for clip in clips if kind_of(clip) == kind]
        held += sorted(own, key=lambda clip: hashlib.blake2b(clip["id"].encode()).hexdigest())[:number]
    return held


def write_world(world: Path, out: Path) -> None:
    """Writes the folder: links to the media, clips without texts, and the truth beside them."""
    out.mkdir(parents=True, exist_ok=True)
    clips = chosen([json.loads(line) for line in (world / "clips.jsonl").open(encoding="utf-8")], NUMBERS)
    with (out / "clips.jsonl").open("w", encoding="utf-8") as stream, (out / "truth.jsonl").open("w") as truth:
        for number, clip in enumerate(clips):
            top = Path(clip["audio"]).parts[0]
            if not (out / top).is_symlink():
                (out / top).symlink_to(os.path.relpath((world / top).resolve(), out.resolve()))
            # An id that says nothing: the real one is the name of the thing.
            kept = {
                "id": f"recording-{number:03d}",
                "audio": clip["audio"],
                "licence": clip["licence"],
                "split": "train",
            }
            stream.write(json.dumps(kept) + "\n")
            truth.write(json.dumps({**clip, "id": kept["id"], "real_id": clip["id"]}, ensure_ascii=False) + "\n")


def said(clip: dict[str, Any]) -> str:
    """Returns what the file of a clip says it is."""
    texts = clip.get("captions", {}).get("audio") or clip.get("captions", {}).get("video") or ""
    text = texts if isinstance(texts, str) else texts[0]
    return f'someone says "{clip.get("transcript") or text}"' if clip["domain"] == "speech" else text


def table(world: Path, data: Path) -> Iterator[str]:
    """Yields the lines of the table."""
    clips = [json.loads(line) for line in (world / "truth.jsonl").open(encoding="utf-8")]
    shown = {clip["id"]: clip for clip in chosen([{**c, "id": c["real_id"], "own": c["id"]} for c in clips], SHOWN)}
    written: dict[str, list[str]] = {}
    for line in (data / "provenance/train.jsonl").open(encoding="utf-8"):
        item = json.loads(line)
        if item["type"] == "audio":
            written.setdefault(item["id"], []).append(item["text"])
    yield "| recording | what its file says | what was written |"
    yield "|---|---|---|"
    for real_id, clip in shown.items():
        yield f"| {real_id} | {said(clip)} | {'; '.join(written.get(clip['own'], ['nothing']))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "world", type=Path, help="folder that experiments/real/clips.py filled, or one that this script did"
    )
    parser.add_argument("out", type=Path, nargs="?", help="folder to make")
    parser.add_argument("--written", type=Path, help="folder that `peav caption` captioned: print the table")
    options = parser.parse_args()
    if options.written:
        print("\n".join(table(options.world, options.written)))
    elif options.out:
        write_world(options.world, options.out)
    else:
        parser.error("give a folder to make, or --written")


if __name__ == "__main__":
    main()
