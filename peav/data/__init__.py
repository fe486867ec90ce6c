"""From media and captions to batches: manifests (Lhotse), shards (LitData), decoding (torchcodec), collation.

`prepare` packs a folder of media; `peav.data.datamodule.ClipDataModule` (Lightning), or `ClipDataset` with `ClipLoader`, read it.
What is named here is imported when it is first used: a process that decodes, or embeds files, loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peav.lazy import lazy_names

if TYPE_CHECKING:
    from peav.data.loading.collate import Collate, Tokenize, collate
    from peav.data.loading.dataset import ClipDataset
    from peav.data.loading.decoding import DecodedClip, DecodeSettings
    from peav.data.loading.level import active_spans
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
    "active_spans",
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

#: Where each name comes from.
_PLACES = {
    **dict.fromkeys(("Collate", "Tokenize", "collate"), "peav.data.loading.collate"),
    **dict.fromkeys(("ClipDataset",), "peav.data.loading.dataset"),
    **dict.fromkeys(("DecodedClip", "DecodeSettings"), "peav.data.loading.decoding"),
    **dict.fromkeys(("active_spans",), "peav.data.loading.level"),
    **dict.fromkeys(("ClipLoader", "TooManyBadClips"), "peav.data.loading.loader"),
    **dict.fromkeys(("Population", "TrainingPlan"), "peav.data.loading.plan"),
    **dict.fromkeys(("EvaluationPlan",), "peav.data.loading.sampler"),
    **dict.fromkeys(("Clip",), "peav.data.manifests.clip"),
    **dict.fromkeys(("RecordError", "find_file"), "peav.data.manifests.fields"),
    **dict.fromkeys(("ManifestError",), "peav.data.manifests.index"),
    **dict.fromkeys(("Manifest", "load_manifest", "open_manifest", "save_manifest"), "peav.data.manifests.manifest"),
    **dict.fromkeys(("Event", "Record", "Reject", "read_records"), "peav.data.manifests.records"),
    **dict.fromkeys(("Caption",), "peav.data.manifests.texts"),
    **dict.fromkeys(("decode_counts", "load_audio", "load_frames"), "peav.data.media.decode"),
    **dict.fromkeys(("MediaError", "MediaInfo", "probe"), "peav.data.media.probing"),
    **dict.fromkeys(("PrepareError", "PrepareReport", "prepare"), "peav.data.packing.prepare"),
    **dict.fromkeys(("StoreError", "StoreOptions"), "peav.data.stores.remote"),
    **dict.fromkeys(("ShardError",), "peav.data.stores.samples"),
    **dict.fromkeys(("Field", "register_field"), "peav.fields"),
}

__getattr__, __dir__ = lazy_names(__name__, _PLACES)
