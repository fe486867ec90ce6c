"""From media and captions to batches: manifests (Lhotse), shards (LitData), decoding (torchcodec), collation.

`prepare` packs a folder of media; `peav.data.datamodule.ClipDataModule` (Lightning), or `ClipDataset` with `ClipLoader`, read it.
"""

from peav.data.loading.collate import Collate, Tokenize, collate
from peav.data.loading.dataset import ClipDataset
from peav.data.loading.decoding import DecodedClip, DecodeSettings
from peav.data.loading.loader import ClipLoader, TooManyBadClips
from peav.data.loading.plan import Population, TrainingPlan
from peav.data.loading.sampler import EvaluationPlan
from peav.data.manifests.clip import Clip
from peav.data.manifests.fields import RecordError, find_file
from peav.data.manifests.index import ManifestError
from peav.data.manifests.manifest import Manifest, load_manifest, open_manifest, save_manifest
from peav.data.manifests.records import Event, Record, Reject, read_records
from peav.data.manifests.texts import Caption
from peav.data.media.decode import decode_counts, load_audio, load_frames
from peav.data.media.probing import MediaError, MediaInfo, probe
from peav.data.packing.prepare import PrepareError, PrepareReport, prepare
from peav.data.stores.remote import StoreError, StoreOptions
from peav.data.stores.samples import ShardError
from peav.fields import Field, register_field

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
    "Field",
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
    "find_file",
    "load_audio",
    "load_frames",
    "load_manifest",
    "open_manifest",
    "prepare",
    "probe",
    "read_records",
    "register_field",
    "save_manifest",
]
