"""How `peav search` says what was found, and cuts it out."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

from peav.data.media.cutting import Part, cut_span
from peav.data.media.errors import MediaError
from peav.data.media.stills import probe_media
from peav.search.found import Found, Moment
from peav.types import Seconds


def as_json(found: Found) -> str:
    """Returns what was found as JSON."""
    return json.dumps(asdict(found), ensure_ascii=False, indent=1)


def as_text(found: Found) -> str:
    """Returns what was found as lines for a terminal."""
    if not found.cards:
        return f"nothing found among {found.searched} windows"
    lines = []
    if found.fits is False:
        lines.append("nothing fits, as far as the model can say; nearest are:")
    for number, card in enumerate(found.cards, 1):
        score = f"score {card.score:.2f}" + ("" if card.match is None else f", match {card.match:.0%}")
        lines.append(f"{number}. {card.file.path}  ({score})")
        for moment in card.moments:
            lines.append(f"     {_span(moment)}  window {moment.window}")
        for path in card.duplicates:
            lines.append(f"     nearly the same: {path}")
    scale = "weighted sum of standard scores over windows of the index" if found.by_sum else "inner product"
    lines.append(f"compared: what is {found.mode}, in {found.searched} windows; score: {scale}")
    return "\n".join(lines)


def _span(moment: Moment) -> str:
    if not moment.seconds:
        return "picture"
    if moment.begin is not None and moment.end is not None and moment.frame_score is not None:
        heard = f", heard {clock(moment.begin)} - {clock(moment.end)} ({moment.frame_score:.0%})"
    else:
        heard = ""
    return f"{clock(moment.start)} - {clock(moment.start + moment.seconds)}{heard}"


def clock(seconds: Seconds) -> str:
    """Says a time.

    >>> clock(75.25), clock(3675.0)
    ('1:15.2', '1:01:15.0')
    """
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def cut_clips(found: Found, out: Path) -> tuple[int, list[str]]:
    """Cuts moments out into a folder: an mp4 each, losslessly coded sound; pictures are copied.

    Returns:
        how many, and why others could not be cut.
    """
    out.mkdir(parents=True, exist_ok=True)
    count, failed = 0, []
    for rank, card in enumerate(found.cards, 1):
        source = Path(card.file.path)
        stem = re.sub(r"[^\w.-]+", "_", source.stem)[:80]
        for number, moment in enumerate(card.moments, 1):
            name = f"{rank:02d}-{number}-{stem}"
            try:
                if card.file.kind == "picture":
                    shutil.copyfile(source, out / f"{name}{source.suffix}")
                else:
                    _cut(source, out / f"{name}.mp4", moment.start, moment.seconds)
                count += 1
            except (MediaError, OSError) as error:
                failed.append(str(error))
    return count, failed


def _cut(source: Path, output: Path, start: Seconds, seconds: Seconds) -> None:
    info = probe_media(str(source))
    parts = {}
    if info.audio is not None:
        parts["audio"] = Part(source, info)
    if info.video is not None and info.video.num_frames and not info.video.still:
        parts["video"] = Part(source, info)
    cut_span(parts, output, start, min(seconds, info.duration - start), source.name)
