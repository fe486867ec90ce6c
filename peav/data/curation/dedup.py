"""A manifest without semantic duplicates; the shards stay where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

from peav.atomic import replacing
from peav.data.curation.clip_duplicates import SemanticOptions, find_clip_duplicates
from peav.data.curation.editing import EditReport, EditWriter, absolute_store, check_out, copy_tokenizer
from peav.data.curation.validate import splits_of
from peav.data.manifests.labels import load_labels
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.stores.remote import StoreOptions

#: In the folder that is written: what was left out, and what was computed.
LISTED, WORK = "duplicates.jsonl", "semantic"


def dedup_manifest(
    data: str | Path,
    out: str | Path,
    options: SemanticOptions,
    splits: Sequence[str] = ("train",),
    overwrite: bool = False,
    store: StoreOptions | None = None,
) -> EditReport:
    """Writes the clips of a prepared folder without those that are semantic duplicates of one that stays.

    `duplicates.jsonl` lists what was left out: `{"id", "split", "stays", "similarity"}`. Splits that are not named stay as they are.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        out: folder to write.
        options: which vectors, and how.
        splits: whose clips are compared, all with each other.
        overwrite: replace what an earlier edit wrote to `out`; what was computed there is used again.
        store: options of object stores.

    Raises:
        EditError: if `out` holds other data.
        FileNotFoundError: if there is no such split, or there are no vectors.
        VectorsError: if the vectors cannot be read, or are not those of the clips.
    """
    data, out = str(data), Path(os.path.abspath(out))  # "." has no name of its own
    check_out(out, [data], "peav data dedup", overwrite)
    manifests = {split: open_manifest(data, split, store) for split in dict.fromkeys(splits)}
    work = out / WORK if (out / WORK).exists() else out.with_name(f".{out.name}.{WORK}")
    clips = ((clip, True) for manifest in manifests.values() for clip in manifest)
    found = find_clip_duplicates(clips, partial(_name_of, list(manifests.values())), options, work)
    address = cache(partial(absolute_store, data, options=store))
    settings = {"splits": list(manifests), "vectors": options.vectors, **asdict(options.settings)}
    with EditWriter(out, "peav data dedup", settings, [data], load_labels(data, store)) as writer:
        with replacing(out / LISTED) as listed, listed.open("w", encoding="utf-8") as stream:
            for split in splits_of(data, store):
                for clip in manifests.get(split) or open_manifest(data, split, store):
                    duplicate = found.get(clip.id) if split in manifests else None
                    if duplicate is None:
                        writer.add(replace(clip, store=address(clip.store)))
                    else:
                        line = {"id": clip.id, "split": split, **asdict(duplicate)}
                        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        writer.report.notes.append(f"{len(found):,} clips are left out: {out / LISTED} says in whose favour")
    if work != out / WORK:
        work.replace(out / WORK)
    copy_tokenizer(data, out, store)
    return writer.finish()


def _name_of(manifests: Sequence[Manifest], position: int) -> str:
    """Returns the id of the clip at a position among those of all manifests."""
    for manifest in manifests:
        if position < len(manifest):
            return manifest[position].id
        position -= len(manifest)
    raise IndexError(f"no manifest has a clip {position} behind its end")
