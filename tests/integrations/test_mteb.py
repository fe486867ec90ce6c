"""A model of peav's in the hands of the real mteb: its own mock tasks, and one with a video that it decodes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mteb
import pytest
import torch
from datasets import Dataset, DatasetDict, Video
from mteb.mocks.mock_tasks import retrieval, zeroshot_classification
from mteb.types import PromptType

from peav.integrations.mteb import PeavMTEB, text_head
from peav.model import PEAV
from tests.inputs.helpers import make_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PeavMTEB:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model().save_pretrained(folder)
    return PeavMTEB(str(folder), device="cpu")


@pytest.fixture
def heads(encoder: PeavMTEB, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The embeddings that are made, in turn."""
    made: list[str] = []
    embed = PEAV.embed

    def noted(model: PEAV, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        found = embed(model, *args, **kwargs)
        to = kwargs.get("to")
        made.append(f"text_{to}" if to else "+".join(sorted({"audio", "video", "text"} & set(kwargs))))
        return found

    monkeypatch.setattr(PEAV, "embed", noted)
    yield made


class Clips(retrieval.MockVideoRetrievalT2V):
    """Two videos, encoded by FFmpeg, and a text of each."""

    folder: Path

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        paths = []
        for number, source in enumerate(("testsrc2", "smptebars")):
            paths.append(str(self.folder / f"{number}.mp4"))
            picture = ["-f", "lavfi", "-i", f"{source}=size=48x48:rate=10:duration=1"]
            command = ["ffmpeg", "-y", "-v", "error", *picture, "-pix_fmt", "yuv420p", paths[-1]]
            subprocess.run(command, check=True)
        texts = {"id": ["q0", "q1"], "text": ["a test picture", "colour bars"], "modality": ["text"] * 2}
        clips = {"id": ["d0", "d1"], "video": paths, "modality": ["video"] * 2}
        self.queries = DatasetDict({"test": Dataset.from_dict(texts)})
        self.corpus = DatasetDict({"test": Dataset.from_dict(clips).cast_column("video", Video())})
        self.relevant_docs = {"test": {"q0": {"d0": 1}, "q1": {"d1": 1}}}
        self.data_loaded = True


def score(encoder: PeavMTEB, task: Any) -> float:
    model: Any = encoder
    found = mteb.evaluate(model, task, cache=None, show_progress_bar=False, encode_kwargs={"batch_size": 2})
    return float(found.task_results[0].get_score())


def test_each_task_gets_its_head(encoder: PeavMTEB, heads: list[str], tmp_path: Path) -> None:
    tasks = {
        retrieval.MockAny2AnyRetrievalT2ATask: {"text_audio", "audio"},
        retrieval.MockAny2AnyRetrievalA2TTask: {"text_audio", "audio"},
        zeroshot_classification.MockAudioZeroshotClassificationTask: {"text_audio", "audio"},
        retrieval.MockRetrievalTask: {"text_audio_video"},
    }
    for task, expected in tasks.items():
        heads.clear()
        assert 0 <= score(encoder, task()) <= 1
        assert set(heads) == expected, task.__name__
    heads.clear()
    Clips.folder = tmp_path
    assert 0 <= score(encoder, Clips()) <= 1
    assert set(heads) == {"text_video", "video"}


def test_the_head_is_that_of_the_other_side() -> None:
    class Task:
        modalities = ("text", "audio", "video")

        def get_modalities(self, side: PromptType) -> list[str]:
            return {"query": ["audio", "text"], "document": ["video"]}[side.value]

    assert text_head(Task(), PromptType.query) == "video" and text_head(Task(), PromptType.document) == "audio"
    assert text_head(Task(), None) == "audio_video"


def test_the_numbers_are_those_of_embed(encoder: PeavMTEB, tmp_path: Path) -> None:
    Clips.folder = tmp_path
    task = Clips()
    task.load_data()
    loader = torch.utils.data.DataLoader(task.corpus["test"], batch_size=2)
    found = encoder.encode(
        loader, task_metadata=task.metadata, hf_split="test", hf_subset="default", prompt_type=PromptType.document
    )
    expected = encoder.model.embed(video=[str(tmp_path / "0.mp4"), str(tmp_path / "1.mp4")])["video"]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    assert encoder.mteb_model_meta is not None and encoder.mteb_model_meta.name == "local/tiny"


def test_videos_that_are_bytes_are_those_of_the_file(encoder: PeavMTEB, tmp_path: Path) -> None:
    Clips.folder = tmp_path
    task = Clips()
    task.load_data()
    held = [{"bytes": (tmp_path / f"{number}.mp4").read_bytes(), "path": None} for number in (1, 0)]
    rows = Dataset.from_dict({"video": held}).cast_column("video", Video())
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    found = encoder.encode(loader, task_metadata=task.metadata, hf_split="test", hf_subset="default")
    expected = encoder.model.embed(video=[str(tmp_path / "1.mp4"), str(tmp_path / "0.mp4")])["video"]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_inputs_that_no_embedding_is_made_of_are_refused(encoder: PeavMTEB) -> None:
    rows = Dataset.from_dict({"text": ["a"], "audio": [[0.0]], "video": [[0.0]]})
    loader = torch.utils.data.DataLoader(rows, batch_size=1)
    metadata = retrieval.MockAny2AnyRetrievalT2ATask.metadata
    with pytest.raises(ValueError, match="no embedding of audio and text and video together; it makes those of audio;"):
        encoder.encode(loader, task_metadata=metadata, hf_split="test", hf_subset="default")
