"""Models of other families, with random weights of small configurations: they pass the contract, and `peav evaluate` evaluates them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from peav import registry
from peav.cli.main import main
from peav.evaluation.adapters import CLAPAdapter, CLIPAdapter, EmbeddingAdapter, find_adapter
from peav.testing.adapters import check_adapter
from tests.helpers import SPECIAL_TOKENS, small_tokenizer


def save_tokenizer(folder: Path, longest: int) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(small_tokenizer()), model_max_length=longest, **names
    )
    own.save_pretrained(folder)


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    folder = tmp_path_factory.mktemp("clap") / "tiny-clap"
    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    audio = {
        "num_mel_bins": 64,
        "spec_size": 256,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
    }
    audio |= {"num_attention_heads": [1, 2, 2, 2], "window_size": 8, "enable_fusion": False, "num_hidden_layers": 4}
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    save_tokenizer(folder, 64)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "eos_token_id": 3,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    save_tokenizer(folder, 64)
    return folder


def test_they_are_registered_and_found_by_what_their_files_say(clap: Path, clip: Path, tmp_path: Path) -> None:
    assert {"CLAPAdapter", "CLIPAdapter", "SentenceTransformersAdapter"} <= set(registry.adapters)
    assert find_adapter(str(clap)) == "CLAPAdapter" and find_adapter(str(clip)) == "CLIPAdapter"
    (tmp_path / "config.json").write_text('{"model_type": "pe_audio_video"}')
    assert find_adapter(str(tmp_path)) is None and find_adapter("facebook/pe-av-small") is None


def test_adapters_pass_the_contract(clap: Path, clip: Path) -> None:
    check_adapter(CLAPAdapter(str(clap)))
    check_adapter(CLIPAdapter(str(clip), num_frames=2))


def test_clap_equals_the_model_itself(clap: Path) -> None:
    from transformers import AutoFeatureExtractor, ClapModel

    wave = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(1))
    model, extractor = ClapModel.from_pretrained(clap).eval(), AutoFeatureExtractor.from_pretrained(clap)
    with torch.inference_mode():
        features = extractor(wave.numpy(), sampling_rate=48000, return_tensors="pt")
        found = model.get_audio_features(**features)
        expected = torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=1)
        torch.testing.assert_close(CLAPAdapter(str(clap)).eval().embed_audio([wave]), expected)


def test_a_broken_adapter_fails_the_contract() -> None:
    class Broken(EmbeddingAdapter):
        embeds = ("text",)
        embedding_dim = 3

        def embed_text(self, texts):
            return torch.nn.functional.normalize(torch.arange(3.0 * len(texts)).view(-1, 3) + len(texts), dim=1)

    with pytest.raises(AssertionError, match="text: an input alone gives another embedding"):
        check_adapter(Broken())


def test_they_are_evaluated_by_the_same_command(clap: Path, clip: Path, world: Path, tmp_path: Path) -> None:
    found = {}
    for model in (clap, clip):
        out = tmp_path / model.name
        assert main(["evaluate", str(model), str(world), f"--out={out}", "--num_workers=0"]) == 0
        found[model.name] = json.loads((out / "evaluation.json").read_text())
    assert set(found["tiny-clap"]["directions"]) == {
        *(
            "text_audio->audio",
            "audio->text_audio",
            "text_audio_video->audio",
            "audio->text_audio_video",
            "audio->text_transcript",
        ),
        "text_transcript->audio",
    }
    assert (
        "text_video->video" in found["tiny-clip"]["directions"] and found["tiny-clip"]["model"]["kind"] == "CLIPAdapter"
    )
    assert (
        found["tiny-clip"]["protocol"]["frame_size"] == [32, 32]
        and found["tiny-clap"]["protocol"]["sample_rate"] == 48000
    )


def test_an_adapter_that_there_is_not_is_a_sentence(
    clap: Path, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(clap), str(world), "--adapter=CLAP"]) == 1
    assert "no adapter is named 'CLAP'. Did you mean 'CLAPAdapter'?" in capsys.readouterr().err


def test_sentence_transformers_models_pass_the_contract(clip: Path, tmp_path: Path) -> None:
    models = pytest.importorskip("sentence_transformers")
    from peav.evaluation.adapters import SentenceTransformersAdapter

    models.SentenceTransformer(modules=[models.models.CLIPModel(str(clip))]).save(str(tmp_path / "st"))
    assert find_adapter(str(tmp_path / "st")) == "SentenceTransformersAdapter"
    check_adapter(SentenceTransformersAdapter(str(tmp_path / "st"), num_frames=2, frame_size=32))
