"""Transcripts that stand in for audio captions, as in PE-AV's fine-tuning: what is said is a text about what is heard."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from peav.data.manifests.index import AUDIO_CAPTIONS, HAS_TRANSCRIPT, ManifestIndex

#: `off`: never. `alone`: where a clip has no audio caption. A share: there too, and with this probability where it has both.
Transcripts = Literal["off", "alone"] | float


def share_of_transcripts(transcripts: Transcripts) -> float | None:
    """Returns the probability with which a transcript takes the place of a clip's audio caption; None where it never stands in.

    Raises:
        ValueError: if it is neither `off`, `alone` nor a probability.

    >>> share_of_transcripts("off"), share_of_transcripts("alone"), share_of_transcripts(0.4)
    (None, 0.0, 0.4)
    """
    if transcripts == "off":
        return None
    if transcripts == "alone":
        return 0.0
    number = isinstance(transcripts, int | float) and not isinstance(transcripts, bool)
    if not number or not math.isfinite(transcripts) or not 0 <= transcripts <= 1:
        raise ValueError(f"transcripts must be 'off', 'alone' or a share from 0 to 1, got {transcripts!r}")
    return float(transcripts)


def heard_text(caption: str | None, transcript: str | None, share: float | None, number: float) -> str | None:
    """Returns the text of what is heard: a clip's audio caption, or its transcript.

    Args:
        caption: the audio caption that was chosen, None where the clip has none.
        transcript: what is said, None where nobody knows.
        share: of `share_of_transcripts`.
        number: drawn from [0, 1) for this clip.

    >>> [heard_text("a voice", "good morning", share, 0.3) for share in (None, 0.0, 0.4)]
    ['a voice', 'a voice', 'good morning']
    >>> [heard_text(None, "good morning", share, 0.9) for share in (None, 0.0, 0.4)]
    [None, 'good morning', 'good morning']
    """
    if share is None or transcript is None or (caption is not None and number >= share):
        return caption
    return transcript


def describe_transcripts(index: ManifestIndex, transcripts: Transcripts) -> str:
    """Says in a line how many clips have a transcript, and what becomes of it; "" where none has.

    Args:
        index: of the training split.
        transcripts: the setting.
    """
    spoken, captioned = index.has(HAS_TRANSCRIPT), index.has(AUDIO_CAPTIONS)
    alone, both = int(np.sum(spoken & ~captioned)), int(np.sum(spoken & captioned))
    share = share_of_transcripts(transcripts)
    if not alone + both:
        return ""
    if share is None:
        return f"{alone + both:,} clips have a transcript, which stands in for no audio caption (data.transcripts=off)"
    said = [f"{alone:,} clips learn their transcript, for they have no audio caption"] if alone else []
    if both:
        part = (
            f"{100 * share:g} % of the times" if share else "never: data.transcripts=0.5 would do so every other time"
        )
        said.append(f"{both:,} have both, and learn the transcript {part}")
    return "; ".join(said)
