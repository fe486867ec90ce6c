"""From media and captions to batches: manifests (Lhotse), shards (LitData), decoding (torchcodec), collation.

`prepare` packs a folder of media; `peav.data.datamodule.ClipDataModule` (Lightning), or `ClipDataset` with `ClipLoader`, read it.
"""

from peav.data.collate import Collate, Tokenize, collate
from peav.data.dataset import Clip, ClipDataset, ClipEntry, read_entries
from peav.data.loader import ClipLoader
from peav.data.manifest import load_manifest, save_manifest
from peav.data.media import MediaError, MediaInfo, decode_counts, load_audio, load_frames, probe
from peav.data.prepare import PrepareError, PrepareReport, prepare
from peav.data.records import Event, Record, RecordError, Reject, read_records
from peav.data.sampler import EvaluationPlan, TrainingPlan
from peav.data.shards import ShardError

__all__ = [
    "Clip",
    "ClipDataset",
    "ClipEntry",
    "ClipLoader",
    "Collate",
    "EvaluationPlan",
    "Event",
    "MediaError",
    "MediaInfo",
    "PrepareError",
    "PrepareReport",
    "Record",
    "RecordError",
    "Reject",
    "ShardError",
    "Tokenize",
    "TrainingPlan",
    "collate",
    "decode_counts",
    "load_audio",
    "load_frames",
    "load_manifest",
    "prepare",
    "probe",
    "read_entries",
    "read_records",
    "save_manifest",
]
