"""Which clips say when their events are, and what of them is true."""

import pytest

from peav.data import Clip, Event
from peav.evaluation.collect import clip_texts

RAIN, SOFT, HARD = (
    Event("rain", 0.0, 1.0),
    Event("wind", 1.0, 2.0, confidence=0.4),
    Event("hail", 1.0, 2.0, confidence=0.5),
)


@pytest.mark.parametrize(
    ("events", "vocabulary", "found"),
    [
        (None, "", None),
        ((), "", []),
        ((RAIN, SOFT, HARD), "weather", [("rain", 0.0, 1.0), ("hail", 1.0, 2.0)]),
        ((RAIN, Event("hail", confidence=0.0)), "", [("rain", 0.0, 1.0)]),
        ((RAIN, Event("hail")), "", None),
        ((RAIN,), "open", None),
    ],
)
def test_events_are_true_where_their_times_are_known(events: object, vocabulary: str, found: object) -> None:
    assert clip_texts(Clip("a", 2.0, events=events, vocabulary=vocabulary)).events == found  # type: ignore[arg-type]
