"""Gates: plugins that say why a caption must not pass."""

from peav.engine.gates.base import Gate, Written, gates, reason_of, register_gate
from peav.engine.gates.media import OtherMedium, SpeechContent
from peav.engine.gates.support import Support
from peav.engine.gates.text import Degenerate, Leak

__all__ = [
    "Degenerate",
    "Gate",
    "Leak",
    "OtherMedium",
    "SpeechContent",
    "Support",
    "Written",
    "gates",
    "reason_of",
    "register_gate",
]
