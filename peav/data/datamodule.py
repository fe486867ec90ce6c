"""The data side of a Lightning run; the only module of peav.data that needs Lightning."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from lightning import LightningDataModule

from peav.data.collate import Tokenize
from peav.data.dataset import ClipDataset, check_fields
from peav.data.loader import ClipLoader
from peav.data.manifest import manifest_path
from peav.data.media import Downmix, Sampling
from peav.data.records import SPLITS
from peav.data.sampler import EvaluationPlan, TrainingPlan
from peav.types import BATCH_FIELDS


class ClipDataModule(LightningDataModule):
    """Batches from a folder that `peav prepare` wrote.

    The model says what it reads (`batch_fields`) and how texts become ids (`tokenize`); what it does not read is not decoded.

    Args:
        data: folder that `peav prepare` wrote.
        batch_size: clips a rank and step.
        num_workers: processes that decode.
        sample_rate: of the audio, Hz.
        num_frames: video frames a clip; ignored when `fps` is given.
        fps: video frames a second.
        frame_size: height and width of the frames, pixels.
        downmix: how channels become one: `meta` is 0.7071 (L + R), `mean` the mean.
        sampling: which frames: `time`, evenly spaced in time, or `index`, Meta's rule.
        seed: of the order of the clips and of the choice among captions.
        shuffle_pairing: a control experiment on the training split: video and captions come from other clips than the audio.
        fields: batch fields to decode; what the model reads by default.
        tokenize: texts to ids and mask; the model's by default.
        predict_split: split that `predict` goes through.
        cache_megabytes: memory for decoded training clips, shared by the workers of a rank; 0 for none.

    Raises:
        ValueError: if a split or a field is unknown.
    """

    def __init__(
        self,
        data: str,
        batch_size: int = 32,
        num_workers: int = 2,
        sample_rate: int = 16000,
        num_frames: int = 8,
        fps: float | None = None,
        frame_size: int = 64,
        downmix: Downmix = "meta",
        sampling: Sampling = "time",
        seed: int = 0,
        shuffle_pairing: bool = False,
        fields: Collection[str] | None = None,
        tokenize: Tokenize | None = None,
        predict_split: str = "test",
        cache_megabytes: int = 0,
    ) -> None:
        super().__init__()
        if predict_split not in SPLITS:
            raise ValueError(f"predict_split must be one of {', '.join(SPLITS)}, got {predict_split!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.data = str(data)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.sample_rate = sample_rate
        self.num_frames = num_frames
        self.fps = fps
        self.frame_size = frame_size
        self.downmix: Downmix = downmix
        self.sampling: Sampling = sampling
        self.seed = seed
        self.shuffle_pairing = shuffle_pairing
        self.fields = None if fields is None else check_fields(fields)
        self.tokenize = tokenize
        self.predict_split = predict_split
        self.cache_megabytes = cache_megabytes
        self.datasets: dict[str, ClipDataset] = {}
        # Lightning keeps these with the checkpoint: what a clip looks like to the model is part of the model.
        self.hparams.update(
            {
                "sample_rate": sample_rate,
                "num_frames": num_frames,
                "fps": fps,
                "frame_size": frame_size,
                "downmix": downmix,
                "sampling": sampling,
            }
        )

    def setup(self, stage: str) -> None:
        """Opens the splits that a stage needs: `fit`, `validate`, `test` or `predict`."""
        wanted = {
            "fit": ("train", "validation"),
            "validate": ("validation",),
            "test": ("test",),
            "predict": (self.predict_split,),
        }
        for split in wanted[stage]:
            if split == "validation" and stage == "fit" and not manifest_path(Path(self.data), split).is_file():
                continue  # training without validation is a choice; asking for it is not
            self.datasets[split] = self._dataset(split)

    def train_dataloader(self) -> ClipLoader:
        """Returns shuffled batches of equal size."""
        dataset = self.datasets["train"]
        plan = TrainingPlan(len(dataset), self.batch_size, self.seed)
        return ClipLoader(dataset, plan, self._tokenize(), self.num_workers)

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
        return ClipLoader(dataset, EvaluationPlan(len(dataset), self.batch_size), self._tokenize(), self.num_workers)

    def _dataset(self, split: str) -> ClipDataset:
        training = split == "train" and not (self.trainer is not None and self.trainer.predicting)
        return ClipDataset(
            self.data,
            split,
            fields=self._fields(),
            sample_rate=self.sample_rate,
            num_frames=self.num_frames,
            fps=self.fps,
            frame_size=self.frame_size,
            downmix=self.downmix,
            sampling=self.sampling,
            seed=self.seed,
            shuffle_pairing=self.shuffle_pairing and training,
            cache_megabytes=self.cache_megabytes if training else 0,
        )

    def _fields(self) -> frozenset[str]:
        if self.fields is not None:
            return self.fields
        module = getattr(self.trainer, "lightning_module", None)
        if module is None:
            return frozenset(BATCH_FIELDS)
        return check_fields(module.batch_fields)

    def _tokenize(self) -> Tokenize | None:
        if self.tokenize is not None:
            return self.tokenize
        return getattr(getattr(self.trainer, "lightning_module", None), "tokenize", None)
