"""Encoders: from media and text to features. Each is a plugin; heads turn features into embeddings."""

from peav.encoders.audio import MelAudioEncoder
from peav.encoders.audio_video import FusionEncoder
from peav.encoders.base import Encoder, Frontend, Stack
from peav.encoders.dac import DacAudioEncoder
from peav.encoders.heads import Head
from peav.encoders.pe_video import PEVideoEncoder
from peav.encoders.queries import PlusTextEncoder
from peav.encoders.text import TextEncoder, Tokenize
from peav.encoders.video import FrameVideoEncoder

__all__ = [
    "DacAudioEncoder",
    "Encoder",
    "FrameVideoEncoder",
    "Frontend",
    "FusionEncoder",
    "Head",
    "MelAudioEncoder",
    "PEVideoEncoder",
    "PlusTextEncoder",
    "Stack",
    "TextEncoder",
    "Tokenize",
]
