"""Models of other families, with random weights of small configurations: they pass the contract, and `peav evaluate` evaluates them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peav import registry
from peav.cli.main import main
from peav.evaluation.adapters import (
    AdaptedModel,
    CLAPAdapter,
    CLIPAdapter,
    EmbeddingAdapter,
    SentenceTransformersAdapter,
    find_adapter,
)
from peav.testing.adapters import check_adapter
from tests.helpers import SPECIAL_TOKENS, small_tokenizer

LAYER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = {"vocab_size": 64, "eos_token_id": 3}


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
    audio = {
        "num_mel_bins": 64,
        "spec_size": 256,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
    }
    audio |= {"num_attention_heads": [1, 2, 2, 2], "window_size": 8, "enable_fusion": False, "num_hidden_layers": 4}
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=LAYER | WORDS, audio_config=audio, projection_dim=24)).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    save_tokenizer(folder, 64)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(
            text_config=LAYER | WORDS, vision_config=LAYER | {"image_size": 32, "patch_size": 8}, projection_dim=24
        )
    ).save_pretrained(folder)
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
        embedding_dim = 3

        def embed_text(self, texts):
            return torch.nn.functional.normalize(torch.arange(3.0 * len(texts)).view(-1, 3) + len(texts), dim=1)

    with pytest.raises(AssertionError, match="text: an input alone gives another embedding"):
        check_adapter(Broken())


def test_what_an_adapter_embeds_is_what_it_has_methods_for(clap: Path) -> None:
    class Nothing(EmbeddingAdapter):
        embedding_dim = 3

    assert CLAPAdapter(str(clap)).embeds == ("audio", "text") and Nothing().embeds == ()
    with pytest.raises(ValueError, match="Nothing embeds nothing: give it embed_audio, embed_video or embed_text"):
        AdaptedModel(Nothing(), "nothing")
    with pytest.raises(AssertionError, match="embeds must be of audio, video, text"):
        check_adapter(Nothing())


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


@pytest.fixture(scope="module")
def sentence_models(clap: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same models as sentence-transformers saves them."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from transformers import (
        AutoTokenizer,
        ClapFeatureExtractor,
        ClapProcessor,
        CLIPImageProcessor,
        CLIPProcessor,
    )

    made = {}
    parts: dict[Path, Any] = {
        clap: (ClapProcessor, ClapFeatureExtractor.from_pretrained(clap)),
        clip: (CLIPProcessor, CLIPImageProcessor.from_pretrained(clip)),
    }
    for source, (processor, own) in parts.items():
        given = tmp_path_factory.mktemp("given") / source.name
        shutil.copytree(source, given)
        processor(own, AutoTokenizer.from_pretrained(source)).save_pretrained(given)
        made[source.name] = given.parent / "sentence-transformers" / source.name
        sentence_transformers.SentenceTransformer(str(given), device="cpu").save(str(made[source.name]))
    return made


def test_sentence_transformers_models_pass_the_contract(sentence_models: dict[str, Path]) -> None:
    kinds = {"tiny-clap": ("audio", "text"), "tiny-clip": ("video", "text")}
    for name, path in sentence_models.items():
        assert find_adapter(str(path)) == "SentenceTransformersAdapter"
        adapter = SentenceTransformersAdapter(str(path), num_frames=2, frame_size=32)
        assert adapter.embeds == kinds[name]
        check_adapter(adapter)


def test_sentence_transformers_models_give_the_embeddings_of_the_models_inside(
    sentence_models: dict[str, Path], clap: Path, clip: Path
) -> None:
    generator = torch.Generator().manual_seed(2)
    waves = [0.1 * torch.randn(length, generator=generator) for length in (48000, 12 * 48000)]
    frames = [torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)]
    given: dict[str, Any] = {"audio": waves, "video": frames, "text": ["a dog barks", "rain"]}
    pairs: list[tuple[EmbeddingAdapter, str]] = [
        (CLAPAdapter(str(clap)), "tiny-clap"),
        (CLIPAdapter(str(clip)), "tiny-clip"),
    ]
    for own, name in pairs:
        other = SentenceTransformersAdapter(str(sentence_models[name]), frame_size=32)
        for kind in own.eval().embeds:
            with torch.inference_mode():
                torch.testing.assert_close(other.embed(kind, given[kind]), own.embed(kind, given[kind]))


def test_a_sentence_transformers_model_is_evaluated_by_the_same_command(
    sentence_models: dict[str, Path], world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(sentence_models["tiny-clap"]), str(world), f"--out={out}", "--num_workers=0"]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["model"]["kind"] == "SentenceTransformersAdapter" and "text_audio->audio" in found["directions"]
