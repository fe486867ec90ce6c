"""Readers of published data sets: their own files to records."""

from peav.data.readers.actions import HMDB51, UCF101, Kinetics
from peav.data.readers.audio_captions import AudioCaps, Clotho
from peav.data.readers.audioset import AudioSetStrong, VGGSound
from peav.data.readers.base import Reader
from peav.data.readers.classified import Classified
from peav.data.readers.desed import DESED
from peav.data.readers.environment import ESC50, UrbanSound8K
from peav.data.readers.huggingface import HuggingFaceDataset
from peav.data.readers.instructions import DynamicSUPERB
from peav.data.readers.label_table import LabelTable
from peav.data.readers.maestro import MAESTROReal
from peav.data.readers.music import GTZAN, NSynth
from peav.data.readers.own import Folder, JSONLines, Table
from peav.data.readers.sound_events import URBANSED, FineLAP
from peav.data.readers.speech import VCTK, LibriSpeech
from peav.data.readers.video_retrieval import MSVD, ActivityNetCaptions, DiDeMo
from peav.data.readers.videos import MSRVTT, VALOR
from peav.data.readers.webdataset import WebDatasetTars

_ALL: tuple[type[Reader], ...] = (
    AudioCaps,
    Clotho,
    VGGSound,
    AudioSetStrong,
    DESED,
    URBANSED,
    FineLAP,
    MAESTROReal,
    VALOR,
    MSRVTT,
    MSVD,
    ActivityNetCaptions,
    DiDeMo,
    ESC50,
    UrbanSound8K,
    GTZAN,
    NSynth,
    Kinetics,
    UCF101,
    HMDB51,
    DynamicSUPERB,
    VCTK,
    LibriSpeech,
    WebDatasetTars,
    HuggingFaceDataset,
    JSONLines,
    Table,
    LabelTable,
    Folder,
)

#: The readers by name.
READERS: dict[str, type[Reader]] = {reader.__name__: reader for reader in _ALL}

__all__ = [
    "DESED",
    "ESC50",
    "GTZAN",
    "HMDB51",
    "MSRVTT",
    "MSVD",
    "READERS",
    "UCF101",
    "URBANSED",
    "VALOR",
    "VCTK",
    "ActivityNetCaptions",
    "AudioCaps",
    "AudioSetStrong",
    "Classified",
    "Clotho",
    "DiDeMo",
    "DynamicSUPERB",
    "FineLAP",
    "Folder",
    "HuggingFaceDataset",
    "JSONLines",
    "Kinetics",
    "LabelTable",
    "LibriSpeech",
    "MAESTROReal",
    "NSynth",
    "Reader",
    "Table",
    "UrbanSound8K",
    "VGGSound",
    "WebDatasetTars",
]
