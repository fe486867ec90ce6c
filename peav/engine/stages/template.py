"""`TemplateWriter`: captions by a small grammar over tags and their confidence words. It cannot invent anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peav.data.manifests.identities import bytes_group
from peav.engine.confidence import WORDS
from peav.engine.stage import Columns, Stage, register_stage

_ONE = ("{a}", "the sound of {a}", "{a} can be heard", "we hear {a}", "{a} and little else")
#: What is hedged is not called the sound of something that sounds like something.
_ONE_HEDGED = ("{a}", "{a} can be heard", "we hear {a}")
_TOGETHER = ("{a} and {b}", "{a} together with {b}", "{a}, with {b}", "{a} alongside {b}", "both {a} and {b}")
_ORDERED = ("{a}, then {b}", "{a} followed by {b}", "first {a}, after that {b}", "{b} after {a}", "{a} before {b}")
_SEEN = ("{a}", "{a} in the picture", "{a} can be seen", "we see {a}", "a view of {a}")
_SEEN_TOGETHER = ("{a} and {b}", "{a} with {b}", "{a}, and {b}", "{a} next to {b}")
_BOTH = (
    "{v} with the sound of {a}",
    "{v} while {a} is heard",
    "{a} is heard and {v} is seen",
    "{v}, and the sound of {a}",
    "we see {v} and hear {a}",
)
_UNSURE = {
    "low": ("possibly {a}", "perhaps {a}", "what might be {a}"),
    "medium": ("what sounds like {a}", "{a}", "{a}"),
}
_UNSURE_SEEN = {
    "low": ("possibly {a}", "perhaps {a}", "what might be {a}"),
    "medium": ("what looks like {a}", "{a}", "{a}"),
}

#: An onset that is later by less than this is at the same time, in seconds.
_SAME_TIME = 0.3


@register_stage
class TemplateWriter(Stage):
    """Writes an audio, a video and an audio-visual caption from tags, by a grammar.

    Sounds and sights of high confidence stand as they are, of medium confidence they may be hedged, and those of low confidence are
    named, hedged, only where there is nothing better. Sounds whose spans are known come in their order. What is said is not quoted: where
    there is speech, or a voice was found, and no tag says so, `speech` is named. Which form a clip gets follows from its id, so it never
    changes; a second attempt takes another one.

    Args:
        sounds: named in a caption at most, 1 or 2.
        sights: likewise.
        speech: what speech is called.
        joint_of_low: whether an audio-visual caption is written where what is heard and what is seen are both of low confidence.
        min_confidence: `low`, `medium` or `high`: what is less sure is not named at all.
    """

    version = 2
    reads = ("tags?", "speech?", "voice?", "candidates?", "has_audio", "has_video")
    provides = ("texts",)

    def __init__(
        self,
        sounds: int = 2,
        sights: int = 2,
        speech: str = "a person speaking",
        joint_of_low: bool = False,
        min_confidence: str = "low",
    ) -> None:
        for name, value in (("sounds", sounds), ("sights", sights)):
            if value not in (1, 2):
                raise ValueError(f"{name} must be 1 or 2, got {value}")
        if min_confidence not in WORDS:
            raise ValueError(f"min_confidence must be one of {', '.join(WORDS)}, got {min_confidence!r}")
        self.sounds, self.sights, self.speech, self.joint_of_low = sounds, sights, speech, joint_of_low
        self._enough = {None, *WORDS[WORDS.index(min_confidence) :]}

    def __call__(self, batch: Columns) -> Columns:
        """Writes for a batch; `attempt`, where it is given, is how often each clip was written before."""
        empty: list[Any] = [None] * len(batch["id"])
        columns = [batch.get(name, empty) for name in ("tags", "speech", "voice", "candidates", "attempt")]
        rows = zip(batch["id"], *columns, batch["has_audio"], batch["has_video"], strict=True)
        texts = []
        for clip, tags, speech, voice, candidates, attempt, has_audio, has_video in rows:
            speaks = bool(voice or (speech or {}).get("text"))
            texts.append(self.write(clip, tags or [], speaks, candidates or [], has_audio, has_video, attempt or 0))
        return {"id": batch["id"], "texts": texts}

    def write(
        self,
        clip: str,
        tags: Sequence[Mapping[str, Any]],
        speaks: bool,
        candidates: Sequence[Mapping[str, Any]],
        has_audio: bool = True,
        has_video: bool = True,
        attempt: int = 0,
    ) -> dict[str, str]:
        """Returns the captions of a clip by type; of a type about which nothing is known, none.

        Args:
            clip: its id.
            tags: what was found.
            speaks: whether somebody speaks.
            candidates: captions of others; the best of a medium stands in for its tags.
            has_audio: whether it has sound.
            has_video: whether it has a picture.
            attempt: 0 for the first.
        """
        tags = [tag for tag in tags if tag.get("confidence") in self._enough]
        candidates = [item for item in candidates if item.get("confidence") in self._enough]
        heard = [dict(tag) for tag in tags if tag["medium"] == "audio"] if has_audio else []
        seen = [dict(tag) for tag in tags if tag["medium"] == "video"] if has_video else []
        if has_audio and speaks and not any(_is_speech(tag["phrase"]) for tag in heard):
            heard.insert(0, {"phrase": self.speech, "medium": "audio", "confidence": "high", "score": 0.0})
        heard = _best(heard, self.sounds) or _of_candidates(candidates, "audio", has_audio)
        seen = _best(seen, self.sights) or _of_candidates(candidates, "video", has_video)
        pick = _Picker(clip, attempt)
        texts: dict[str, str] = {}
        sound = self._heard(heard, pick) if heard else ""
        sight = self._seen(seen, pick) if seen else ""
        if sound:
            forms = _ONE if sound == heard[0]["phrase"] else _ONE_HEDGED
            texts["audio"] = pick.of(forms, "one").format(a=sound) if len(heard) == 1 else sound
        if sight:
            texts["video"] = pick.of(_SEEN, "seen").format(a=sight) if len(seen) == 1 else sight
        low = heard and seen and {heard[0].get("confidence"), seen[0].get("confidence")} == {"low"}
        if sound and sight and (self.joint_of_low or not low):
            texts["audio_video"] = pick.of(_BOTH, "both").format(a=sound, v=sight)
        return texts

    def _heard(self, tags: Sequence[Mapping[str, Any]], pick: _Picker) -> str:
        words = [_hedged(tag, _UNSURE, pick) for tag in tags]
        if len(words) == 1:
            return words[0]
        starts = [min((span[0] for span in tag.get("spans") or ()), default=None) for tag in tags]
        if starts[0] is not None and starts[1] is not None and abs(starts[0] - starts[1]) >= _SAME_TIME:
            first, second = words if starts[0] < starts[1] else words[::-1]
            return pick.of(_ORDERED, "ordered").format(a=first, b=second)
        return pick.of(_TOGETHER, "together").format(a=words[0], b=words[1])

    def _seen(self, tags: Sequence[Mapping[str, Any]], pick: _Picker) -> str:
        words = [_hedged(tag, _UNSURE_SEEN, pick) for tag in tags]
        return words[0] if len(words) == 1 else pick.of(_SEEN_TOGETHER, "seen2").format(a=words[0], b=words[1])


class _Picker:
    """Chooses forms for a clip, the next one at each attempt."""

    def __init__(self, clip: str, attempt: int) -> None:
        self._clip, self._attempt = clip, attempt

    def of(self, forms: Sequence[str], purpose: str) -> str:
        return forms[(bytes_group(f"{self._clip}\0{purpose}".encode()) + self._attempt) % len(forms)]


def _hedged(tag: Mapping[str, Any], forms: Mapping[str, Sequence[str]], pick: _Picker) -> str:
    own = forms.get(tag.get("confidence") or "high")
    return pick.of(own, tag["phrase"]).format(a=tag["phrase"]) if own else str(tag["phrase"])


def _best(tags: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    better = [tag for tag in tags if tag.get("confidence") != "low"]
    chosen: list[dict[str, Any]] = []
    for tag in better or tags[:1]:
        if tag["phrase"] not in [other["phrase"] for other in chosen]:
            chosen.append(tag)
    return chosen[:most]


def _of_candidates(candidates: Sequence[Mapping[str, Any]], kind: str, there: bool) -> list[dict[str, Any]]:
    rank = {"high": 2, "low": 0}
    own = [item for item in candidates if item["kind"] == kind and item["text"].strip()] if there else []
    own.sort(key=lambda item: rank.get(str(item.get("confidence")), 1), reverse=True)
    return [{"phrase": own[0]["text"].strip().rstrip("."), "confidence": own[0].get("confidence")}] if own else []


def _is_speech(phrase: str) -> bool:
    return any(word in phrase.lower() for word in ("speak", "speech", "talk", "voice", "saying"))
