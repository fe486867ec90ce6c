"""What stages that run a PE-AV model share: how it is loaded, which media it wants, and how phrases are scored for a medium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from peav.engine.digests import ModelFiles
from peav.engine.stage import FrameNeeds, Stage

if TYPE_CHECKING:
    from torch import Tensor

Medium = Literal["audio", "video"]

#: The column of the media that has a medium.
MEDIA_COLUMN: dict[Medium, str] = {"audio": "audio", "video": "frames"}


class PEAVStage(ModelFiles, Stage):
    """Base class of stages that run a PE-AV model.

    Args:
        model: a folder in Meta's format, transformers' or peav's; a `.ckpt` of `peav fit`; or a repository of the hub.
        trust: let the model name classes by their dotted path, which are then imported, and run.
        device: to compute on.
    """

    def __init__(self, model: str, trust: bool, device: str) -> None:
        from peav.model import PEAV  # noqa: PLC0415  keeps `import peav.engine.stages` light

        super().__init__()
        self.model = PEAV.from_pretrained(model, trust=trust).to(device)
        media = self.model.media
        self.sample_rate = media.sample_rate
        self.frame_needs = FrameNeeds((media.frame_size, media.frame_size), media.num_frames, media.fps)

    def embed_texts(self, texts: Sequence[str], medium: Medium) -> Tensor:
        """Returns the embeddings (P, D) of texts that are held against a medium."""
        return self.model.embed(text=texts, to=medium)[f"text_{medium}"]

    def logits(self, medium: Medium, values: Sequence[NDArray[Any]], texts: Tensor) -> Tensor:
        """Returns the logits (N, P) of the media of clips with texts, float64, on the CPU.

        Args:
            medium: of the media.
            values: N of them, as the columns have them.
            texts: embeddings (P, D), of :meth:`embed_texts`.
        """
        import torch  # noqa: PLC0415

        given = [torch.from_numpy(value) for value in values]
        embeds = (
            self.model.embed(audio=given, sample_rate=self.sample_rate)
            if medium == "audio"
            else self.model.embed(video=given)
        )
        with torch.inference_mode():
            return self.model.similarity({medium: embeds[medium]}, {f"text_{medium}": texts}).cpu().double()
