"""From media and captions to batches: manifests (Lhotse), shards (LitData), decoding (torchcodec), collation.

`prepare` packs a folder of media; `peav.data.datamodule.ClipDataModule` (Lightning), or `ClipDataset` with `ClipLoader`, read it.
"""

from peav.data.clip import Clip
from peav.data.collate import Collate, Tokenize, collate
from peav.data.dataset import ClipDataset
from peav.data.decoding import DecodedClip, DecodeSettings
from peav.data.fields import RecordError
from peav.data.index import ManifestError
from peav.data.loader import ClipLoader, TooManyBadClips
from peav.data.manifest import Manifest, load_manifest, open_manifest, save_manifest
from peav.data.media import decode_counts, load_audio, load_frames
from peav.data.plan import Population, TrainingPlan
from peav.data.prepare import PrepareError, PrepareReport, prepare
from peav.data.probing import MediaError, MediaInfo, probe
from peav.data.records import Event, Record, Reject, read_records
from peav.data.remote import StoreError, StoreOptions
from peav.data.sampler import EvaluationPlan
from peav.data.samples import ShardError
from peav.data.texts import Caption

__all__ = [
    "Caption",
    "Clip",
    "ClipDataset",
    "ClipLoader",
    "Collate",
    "DecodeSettings",
    "DecodedClip",
    "EvaluationPlan",
    "Event",
    "Manifest",
    "ManifestError",
    "MediaError",
    "MediaInfo",
    "Population",
    "PrepareError",
    "PrepareReport",
    "Record",
    "RecordError",
    "Reject",
    "ShardError",
    "StoreError",
    "StoreOptions",
    "Tokenize",
    "TooManyBadClips",
    "TrainingPlan",
    "collate",
    "decode_counts",
    "load_audio",
    "load_frames",
    "load_manifest",
    "open_manifest",
    "prepare",
    "probe",
    "read_records",
    "save_manifest",
]
