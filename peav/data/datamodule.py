"""The data side of a Lightning run; the only module of peav.data that needs Lightning."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from peav.data.loading.augment import AudioAugmentation
from peav.data.loading.collate import Tokenize
from peav.data.loading.dataset import ClipDataset, check_fields
from peav.data.loading.features import FeatureInfo
from peav.data.loading.loader import OTHER_SEQUENCE, ClipLoader
from peav.data.loading.mixing import Mixing
from peav.data.loading.plan import DataSettingError, Population, TrainingPlan
from peav.data.loading.sampler import EvaluationPlan
from peav.data.loading.transcripts import Transcripts, describe_transcripts, share_of_transcripts
from peav.data.manifests.index import ManifestError
from peav.data.manifests.manifest import has_split
from peav.data.manifests.records import SPLITS
from peav.data.stores.reader import number_chunks
from peav.data.stores.remote import StoreOptions
from peav.distributed import world_size
from peav.types import DEFAULT_FIELDS, ClipFormat, Downmix, Sampling

_log = logging.getLogger(__name__)

#: Settings that decide the content of training batches, beside what a clip looks like and its augmentation.
_CONTENT = (
    *(
        "seed",
        "domain_weights",
        "origin_weights",
        "transcripts",
        "num_buckets",
        "window_chunks",
        "modality_dropout",
        "features",
        "phrase_bank",
    ),
    "shuffle_pairing",
)

#: Chunks of an object store whose clips are shuffled among each other, where nothing else is said: about 4 GB.
REMOTE_WINDOW_CHUNKS = 64


class CountResumedEpoch(Callback):
    """Mends Lightning's count of epochs after a resume from the last step of one.

    Lightning 2.6 then begins the next epoch without counting it as begun (`FitLoop.on_advance_start` takes it for the rest of the
    old one), and a second resume inside that epoch starts it over.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the loop that what follows is a new epoch."""
        loop = trainer.fit_loop
        ended = loop.epoch_loop.restarted_on_train_batch_end and loop.epoch_loop.batch_progress.is_last_batch
        if loop.restarted_mid_epoch and ended:
            loop.reset_restart_stage()


#: What a clip looks like where neither the user nor the model says anything.
DEFAULT_FORMAT = ClipFormat(sample_rate=16000, frame_size=64, num_frames=8, fps=None, downmix="meta", sampling="time")


def describe(item: object) -> str:
    """Returns what an augmentation is and how it was set, the same in every process.

    >>> class Gain:
    ...     def __init__(self) -> None:
    ...         self.decibels = 6.0
    >>> describe(Gain())
    "Gain({'decibels': 6.0})"
    """
    text = repr(item) if isinstance(item, nn.Module) else f"{type(item).__name__}({vars(item)})"
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def resolve_format(given: ClipFormat, wanted: ClipFormat) -> ClipFormat:
    """Returns what a clip looks like: as given, else as the model wants it, else the default.

    Args:
        given: by the user.
        wanted: by the model.

    Raises:
        DataSettingError: if they disagree in anything but the number of frames.
    """
    free = {"num_frames", "fps"}
    user, model = given.settings(), wanted.settings()
    for name, value in user.items():
        if name not in free and name in model and model[name] != value:
            raise DataSettingError(
                f"data.{name}={value}, but the model reads {name}={model[name]}: leave data.{name} out, and the data follow the model"
            )
    if free & set(user):  # one choice of frames replaces the other
        model = {name: value for name, value in model.items() if name not in free}
    found = {**DEFAULT_FORMAT.settings(), **model, **user}
    if "fps" in found:
        found["num_frames"] = None
    return ClipFormat(**found)


@contextmanager
def _as_setting_errors() -> Iterator[None]:
    """Tells values that cannot be from faults of the program; damaged data say so themselves."""
    try:
        yield
    except (ManifestError, DataSettingError):
        raise
    except ValueError as error:
        raise DataSettingError(str(error)) from error


class ClipDataModule(LightningDataModule):
    """Batches from a folder that `peav prepare` wrote.

    The model says what it reads (`batch_fields`), what a clip must look like to it (`clip_format`) and how texts become ids (`tokenize`).
    Only what it reads is decoded. What is given here of the format of a clip must agree with the model; `num_frames` and `fps` may be
    chosen.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store (`s3://bucket/data`).
        batch_size: clips a rank and step.
        num_workers: processes that decode.
        prefetch_factor: batches that each of them makes ahead; they wait in shared memory (/dev/shm).
        pin_memory: keep batches in page-locked memory, from which a GPU copies while it computes; with a GPU by default.
        sample_rate: of the audio, Hz; the model's, or 16000 where it hears any.
        num_frames: video frames a clip; the model's, or 8. Ignored when `fps` is given.
        fps: video frames a second; the model's, or none.
        frame_size: height and width of the frames, pixels; the model's, or 64 where it sees any.
        downmix: how channels become one: `meta` is 0.7071 (L + R), `mean` the mean; the model's, or `meta`.
        sampling: which frames: `time`, evenly spaced in time, or `index`, Meta's rule; the model's, or `time`.
        seed: of the order of the clips, and of all that is chosen at random for each.
        domain_weights: share of the clips of an epoch by domain, up to a common factor; as in the data by default.
        origin_weights: weights of `real` and `synthetic` captions, of clips and within a clip that has both; the paper trains best
            on 1 to 10. By default every clip and every caption counts alike.
        transcripts: how what is said trains the head of audio captions: `alone`, where a clip has no audio caption; a share from 0
            to 1, with this probability in place of an audio caption too; or `off`. An objective `CaptionPair caption: transcript`
            reads it whatever this says.
        num_buckets: buckets of durations; each step has clips of one of them, on all ranks.
        window_chunks: chunks whose clips are shuffled among each other; all of them on disk, 64 in an object store by default.
        max_bad_share: share of the training clips that may be replaced because they cannot be read; beyond it, and beyond ten clips, the
            run stops. 0 allows none.
        modality_dropout: probability with which a clip that has both loses its `audio`, and its `video`.
        audio_augment: changes of the training waveforms, in order (`peav.data.loading.augment`).
        video_augment: transforms of `torchvision.transforms.v2` for the training frames, in order.
        features: cached features to read in place of media: {"audio": name, "video": name} (`peav prepare --features`).
        shuffle_pairing: a control experiment on the training split: video and captions come from other clips than the audio.
        fields: batch fields to decode; what the model reads by default.
        tokenize: texts to ids and mask; the model's by default.
        predict_split: split that `predict` goes through.
        cache_megabytes: memory for decoded training clips, shared by the workers of a rank; 0 for none.
        store: of object stores: cache_dir, cache_gigabytes and storage_options.
        field_options: arguments of fields of your own kinds (`peav.fields.Field`), by name.
        phrase_bank: phrases that are drawn for each batch from the events of all training clips, as further negatives of the
            frame-level term; those that a clip of the batch has are left out.
        mixing: foreground events that are mixed over training clips; none by default.

    Raises:
        ValueError: if a split or a field is unknown, or a number out of range.
    """

    def __init__(
        self,
        data: str,
        batch_size: int = 32,
        num_workers: int = 2,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        sample_rate: int | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        frame_size: int | None = None,
        downmix: Downmix | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        domain_weights: dict[str, float] | None = None,
        origin_weights: dict[str, float] | None = None,
        transcripts: Transcripts = "alone",
        num_buckets: int = 1,
        window_chunks: int | None = None,
        max_bad_share: float = 0.01,
        modality_dropout: dict[str, float] | None = None,
        audio_augment: list[AudioAugmentation] | None = None,
        video_augment: list[nn.Module] | None = None,
        features: dict[str, str] | None = None,
        shuffle_pairing: bool = False,
        fields: Collection[str] | None = None,
        tokenize: Tokenize | None = None,
        predict_split: str = "test",
        cache_megabytes: int = 0,
        store: StoreOptions | None = None,
        field_options: dict[str, dict[str, Any]] | None = None,
        phrase_bank: int = 0,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        if predict_split not in SPLITS:
            raise ValueError(f"predict_split must be one of {', '.join(SPLITS)}, got {predict_split!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.data = str(data)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self.given = ClipFormat(sample_rate, frame_size, num_frames, fps, downmix, sampling)
        self.seed = seed
        self.domain_weights = domain_weights
        self.origin_weights = origin_weights
        share_of_transcripts(transcripts)
        self.transcripts: Transcripts = transcripts
        self.num_buckets = num_buckets
        self.window_chunks = window_chunks
        self.max_bad_share = max_bad_share
        self.modality_dropout = modality_dropout
        self.audio_augment = audio_augment or []
        self.video_augment = video_augment or []
        self.features = features or {}
        self.store = store or StoreOptions()
        self.shuffle_pairing = shuffle_pairing
        self.field_options = field_options or {}
        self.fields = None if fields is None else check_fields(fields)
        self.tokenize = tokenize
        self.predict_split = predict_split
        self.cache_megabytes = cache_megabytes
        self.phrase_bank = phrase_bank
        self.mixing = mixing
        self.datasets: dict[str, ClipDataset] = {}
        self._loaders: list[ClipLoader] = []
        self._digest: str | None = None
        self._keep_format(self.given)
        self.hparams.update({"field_options": self.field_options})

    @property
    def clip_format(self) -> ClipFormat:
        """What a clip looks like in the batches: as given, else as the model wants it, else the defaults.

        Raises:
            DataSettingError: if something given disagrees with the model.
        """
        module = getattr(self.trainer, "lightning_module", None)
        return resolve_format(self.given, getattr(module, "clip_format", ClipFormat()))

    def follow(self, trained: ClipFormat) -> None:
        """Takes what is not given from the run whose checkpoint is evaluated; other frames than it was trained on are said.

        Raises:
            DataSettingError: if something given disagrees, but for the number of frames.
        """
        if trained.fps is not None:
            trained = replace(trained, num_frames=None)
        found = resolve_format(self.given, trained)
        if (found.num_frames, found.fps) != (trained.num_frames, trained.fps):
            _log.warning(
                "the model was trained on clips of num_frames=%s, fps=%s; here they are num_frames=%s, fps=%s",
                *(trained.num_frames, trained.fps, found.num_frames, found.fps),
            )
        self.given = found

    def _keep_format(self, known: ClipFormat) -> None:
        """Lets Lightning keep the format with the checkpoint: what a clip looks like to the model is part of the model."""
        self.hparams.update({f.name: getattr(known, f.name) for f in fields(ClipFormat)})

    def setup(self, stage: str) -> None:
        """Opens the splits that a stage needs: `fit`, `validate`, `test` or `predict`."""
        wanted = {
            "fit": ("train", "validation"),
            "validate": ("validation",),
            "test": ("test",),
            "predict": (self.predict_split,),
        }
        self._keep_format(self.clip_format)
        trainer = self.trainer
        self._digest = None
        if stage == "fit" and trainer is not None:
            callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
            if not any(isinstance(callback, CountResumedEpoch) for callback in callbacks):
                callbacks.insert(0, CountResumedEpoch())
        for split in wanted[stage]:
            if split == "validation" and stage == "fit" and not has_split(self.data, split, self.store):
                continue  # training without validation is a choice; asking for it is not
            with _as_setting_errors():
                self.datasets[split] = self._dataset(split)

    @property
    def feature_infos(self) -> dict[str, FeatureInfo]:
        """What is read in place of media, by `audio` and `video`.

        Raises:
            DataSettingError: if the folders that the clips lie in have features of different frontends.
        """
        found: dict[str, tuple[str, FeatureInfo]] = {}
        for dataset in self.datasets.values():
            for kind, reader in dataset.features.items():
                for name in dataset.manifest.index.stores:
                    with _as_setting_errors():
                        info = reader.store(name)[1]
                    first, other = found.setdefault(kind, (name, info))
                    if (other.frontend, other.dim) != (info.frontend, info.dim):
                        raise DataSettingError(
                            f"the features {info.name!r} of {first} and of {name} were made by different frontends ({other.frontend} "
                            f"and {info.frontend}): make them with one model"
                        )
        return {kind: info for kind, (_, info) in found.items()}

    def train_dataloader(self) -> ClipLoader:
        """Returns shuffled batches of equal size."""
        dataset = self.datasets["train"]
        with _as_setting_errors():
            plan = self.plan(dataset)
        # A checkpoint from an epoch's end holds no place in the data, and still belongs to one order of the clips.
        digest = plan.digest(world_size())
        if self._digest not in (None, digest):
            raise DataSettingError(f"the run that is resumed {OTHER_SEQUENCE}")
        self._digest = digest
        _log.info("training: %s", plan.describe())
        spoken = describe_transcripts(dataset.manifest.index, self.transcripts)
        if spoken and "captions.audio" in dataset.fields:
            _log.info("training: %s", spoken)
        return self._loader(dataset, plan)

    def training_settings(self, ranks: int) -> dict[str, Any]:
        """Returns what decides the content of training batches, as plain data.

        Args:
            ranks: among which a global batch is divided.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _CONTENT}
        values |= {
            name: [describe(item) for item in getattr(self, name)] for name in ("audio_augment", "video_augment")
        }
        # Where foregrounds lie, and how much memory they take, changes nothing.
        other = ("foreground", "cache_megabytes")
        mixing = None if self.mixing is None else asdict(self.mixing)
        values["mixing"] = mixing and {name: value for name, value in mixing.items() if name not in other}
        if "train" in self.datasets and (mixer := self.datasets["train"].mixer) is not None:
            values["mixing.foreground"] = mixer.manifest.index.digest
        return {"batch_size times devices": self.batch_size * ranks, **self.hparams, **values}

    def check_resumed(self, state: Mapping[str, Any], ranks: int, before_setup: bool = False) -> None:
        """Checks that training goes on with the data settings of the run that is resumed.

        Args:
            state: what `state_dict()` gave in that run.
            ranks: of this one.
            before_setup: whether what a clip looks like is only known where it was given.

        Raises:
            DataSettingError: if one differs; the message names it.
        """
        before, now = state.get("settings", {}), self.training_settings(ranks)
        unknown = {name for name in self.hparams if before_setup and now[name] is None}
        given = [name for name in before if name in now and name not in unknown]
        found = [
            f"data.{name} is {now[name]!r}, it was {before[name]!r}" for name in given if now[name] != before[name]
        ]
        if found:
            raise DataSettingError(
                f"a run cannot go on with other batches: {'; '.join(found)}. Give the settings of the run, or begin a new one from its "
                "weights (model.init_from)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns, for the checkpoint, what decides the content of training batches, and the digest of their order."""
        if "train" not in self.datasets:
            return {}
        return {"settings": self.training_settings(world_size()), "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict()` gave; training with other batches is refused.

        Raises:
            DataSettingError: see `check_resumed`.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.check_resumed(state, world_size())
            self._digest = state.get("digest")

    def plan(self, dataset: ClipDataset) -> TrainingPlan:
        """Returns the plan of training on a data set."""
        index = dataset.manifest.index
        stores = [dataset.reader.store(name) for name in index.stores]
        window = self.window_chunks
        if window is None and any(store.cache is not None for store in stores):
            window = REMOTE_WINDOW_CHUNKS
        chunk = None if window is None else number_chunks(stores, index.store, index.row)
        return TrainingPlan(
            Population.of(index, chunk),
            self.batch_size,
            self.seed,
            self.domain_weights,
            self.origin_weights,
            self.num_buckets,
            window,
            # A rank that keeps features of its clips in memory should meet them again.
            getattr(getattr(self.trainer, "lightning_module", None), "features", None) is not None,
        )

    def val_dataloader(self) -> ClipLoader | list[ClipLoader]:
        """Returns all validation clips in order; nothing if the split was not prepared."""
        return self._evaluation("validation") if "validation" in self.datasets else []

    def test_dataloader(self) -> ClipLoader:
        """Returns all test clips in order."""
        return self._evaluation("test")

    def predict_dataloader(self) -> ClipLoader:
        """Returns all clips of `predict_split` in order."""
        return self._evaluation(self.predict_split)

    def _evaluation(self, split: str) -> ClipLoader:
        dataset = self.datasets[split]
        return self._loader(dataset, EvaluationPlan(len(dataset), self.batch_size))

    def _loader(self, dataset: ClipDataset, plan: TrainingPlan | EvaluationPlan) -> ClipLoader:
        pin = torch.cuda.is_available() if self.pin_memory is None else self.pin_memory
        with _as_setting_errors():
            loader = ClipLoader(
                dataset, plan, self._tokenize(), self.num_workers, self.prefetch_factor, pin, self.max_bad_share
            )
        self._loaders.append(loader)
        return loader

    def teardown(self, stage: str) -> None:
        """Ends the workers of all loaders."""
        self._end_workers()

    def on_exception(self, exception: BaseException) -> None:
        """Ends the workers of all loaders."""
        self._end_workers()

    def _end_workers(self) -> None:
        while self._loaders:
            self._loaders.pop().close()

    def _dataset(self, split: str) -> ClipDataset:
        training = split == "train" and not (self.trainer is not None and self.trainer.predicting)
        return ClipDataset(
            self.data,
            split,
            fields=self._fields(),
            **self.clip_format.settings(),
            seed=self.seed,
            shuffle_pairing=self.shuffle_pairing and training,
            cache_megabytes=self.cache_megabytes if training else 0,
            features=self.features,
            modality_dropout=self.modality_dropout if training else None,
            origin_weights=self.origin_weights if training else None,
            # What is predicted is of the clip's own captions; losses are of the texts that train.
            transcripts="off" if self.trainer is not None and self.trainer.predicting else self.transcripts,
            audio_augment=self.audio_augment if training else (),
            video_augment=self.video_augment if training else (),
            store=self.store,
            field_options=self.field_options,
            phrase_bank=self.phrase_bank if training else 0,
            mixing=self.mixing if training else None,
        )

    def _fields(self) -> frozenset[str]:
        if self.fields is not None:
            return self.fields
        module = getattr(self.trainer, "lightning_module", None)
        if module is None:
            return frozenset(DEFAULT_FIELDS)
        return check_fields(module.batch_fields)

    def _tokenize(self) -> Tokenize | None:
        if self.tokenize is not None:
            return self.tokenize
        return getattr(getattr(self.trainer, "lightning_module", None), "tokenize", None)
