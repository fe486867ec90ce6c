"""A folder as a person has it, through `peav prepare --reader Folder`, `fit`, `evaluate` and `embed`: every file is accounted for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peav.cli.main import main
from tests.data.conftest import cut_bytes, ffmpeg

_EXPERIMENTS = Path(__file__).parents[2] / "experiments"
_RECIPE = _EXPERIMENTS / "tiny_cpu.yaml"

#: What is in the folder, and what a text beside it says.
_GOOD = {
    "phone/VID_0001.mp4": "A street in the morning",
    "phone/VID_0002.mov": "A dog runs",
    "memos/New Recording 1.m4a": "Someone hums",
    "messages/PTT-20240101.opus": "A beep",
    "messages/PTT-20240102.ogg": "Two beeps",
    "photos/IMG_0001.jpg": "A red wall",
    "photos/IMG_0002.png": "A blue wall",
    "photos/sticker.webp": "A sticker",
    "photos/dance.gif": "Colours change",
    "album/01 Song.mp3": "A song",
    "album/02 Song.flac": "Another song",
    "album/folder.jpg": "The cover of an album",
    "screen/2024-01-01.webm": "Windows on a screen",
    "phone/half.mp4": "A video whose picture is damaged",
}
_BAD = {
    "downloads/film.mp4": "truncated|cannot be opened|cannot be decoded",
    "downloads/photo.jpg": "is a web page, not a medium",
    "photos/IMG_0003.HEIC": "HEIC picture",
    "photos/cut.jpg": "truncated: the JPEG picture ends early",
    "memos/empty.m4a": "zero bytes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home") / "media"
    for name in (*_GOOD, *_BAD):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    tone = ["-f", "lavfi", "-i", "sine=440:r=16000:d=2"]
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=12:d=2"]
    h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1", "-g", "12"]
    plain = root.parent / "plain.mp4"
    # A phone turns the picture by a note in the header, and skips frames when it is dark.
    rate = ["-vf", "select='not(between(n,6,9))'", "-fps_mode", "vfr"]
    ffmpeg(*pattern, *tone, *rate, *h264, "-c:a", "aac", str(plain))
    ffmpeg("-i", str(plain), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(root / "phone/VID_0001.mp4"))
    ffmpeg(*pattern, *tone, *h264, "-c:a", "aac", str(root / "phone/VID_0002.mov"))
    ffmpeg(*tone, "-c:a", "aac", str(root / "memos/New Recording 1.m4a"))
    ffmpeg(*tone, "-c:a", "libopus", "-b:a", "16k", "-ac", "1", str(root / "messages/PTT-20240101.opus"))
    ffmpeg(*tone, "-c:a", "libopus", "-b:a", "16k", str(root / "messages/PTT-20240102.ogg"))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (320, 240), "red").save(root / "photos/IMG_0001.jpg", exif=turned)
    Image.new("RGB", (320, 240), "blue").save(root / "photos/IMG_0002.png")
    Image.new("RGBA", (64, 64), (0, 255, 0, 99)).save(root / "photos/sticker.webp")
    colours = [Image.new("P", (32, 32), number) for number in range(3)]
    colours[0].save(root / "photos/dance.gif", save_all=True, append_images=colours[1:], duration=300)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    Image.fromarray(noise).save(root / "album/folder.jpg")
    cover = [
        "-i",
        str(root / "album/folder.jpg"),
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
    ]
    for name in ("01 Song.mp3", "02 Song.flac"):
        ffmpeg(*tone, *cover, str(root / "album" / name))
    screen = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]
    ffmpeg(*pattern, *screen, str(root / "screen/2024-01-01.webm"))
    damaged = bytearray((root / "phone/VID_0002.mov").read_bytes())
    place = damaged.find(b"mdat") + 1500
    damaged[place : place + 200] = bytes((7 * i + 13) % 256 for i in range(200))
    (root / "phone/half.mp4").write_bytes(damaged)
    cut_bytes(root / "phone/VID_0002.mov", root / "downloads/film.mp4", 0.6)
    (root / "downloads/photo.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (root / "photos/IMG_0003.HEIC").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(500))
    cut_bytes(root / "album/folder.jpg", root / "photos/cut.jpg", 0.5)
    (root / "memos/empty.m4a").touch()
    for name, text in _GOOD.items():
        (root / name).with_suffix(".txt").write_text(text)
    (root / "album/playlist.m3u").write_text("01 Song.mp3\n")
    (root / ".thumbnails").mkdir()
    shutil.copy(root / "photos/IMG_0002.png", root / ".thumbnails/x.png")
    (root / "favourites").symlink_to(root / "photos")
    return root


def test_a_folder_as_a_person_has_it(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    choices = ["--reader=Folder", "--cover_art=true", "--partial=keep", "--still_seconds=2", "--workers=0"]
    assert main(["prepare", str(folder), str(data), *choices]) == 0
    clips = {clip["id"]: clip for clip in map(json.loads, (data / "manifest/train.jsonl").read_text().splitlines())}
    rejects = {
        line["id"]: line["reason"] for line in map(json.loads, (data / "rejects.jsonl").read_text().splitlines())
    }
    assert set(clips) == set(_GOOD)
    assert set(rejects) == set(_BAD)
    for name, reason in _BAD.items():
        assert any(part in rejects[name] for part in reason.split("|")), (name, rejects[name])
    assert "passed over 1 files by their extension: 1 .m3u" in caplog.text
    assert "passed over 1 hidden files and folders" in caplog.text
    held = {name: (clip["custom"]["has_audio"], clip["custom"]["has_video"]) for name, clip in clips.items()}
    sounds = ("memos/New Recording 1.m4a", "messages/PTT-20240101.opus", "messages/PTT-20240102.ogg", "phone/half.mp4")
    both = ("phone/VID_0001.mp4", "phone/VID_0002.mov", "album/01 Song.mp3", "album/02 Song.flac")
    assert {name for name, kinds in held.items() if kinds == (True, False)} == set(sounds)
    assert {name for name, kinds in held.items() if kinds == (True, True)} == set(both)
    report = json.loads((data / "prepare.json").read_text())["report"]
    assert report["partial"] == {"video": 1}
    for command in (["stats"], ["validate"], ["inspect", f"--out={tmp_path / 'page.html'}"]):
        assert main(["data", command[0], str(data), *command[1:]]) == 0
    fit = [
        "fit",
        f"--config={_RECIPE}",
        f"--data.data={data}",
        f"--trainer.default_root_dir={out}",
        "--data.batch_size=7",
    ]
    fit += [f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}", "--trainer.max_epochs=1"]
    fit += ["--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false", "--data.num_buckets=1"]
    assert main(fit) == 0
    checkpoint = out / "checkpoints/last.ckpt"
    assert main(["evaluate", str(checkpoint), str(data), "--split=train", "--num_workers=0", f"--out={out}"]) == 0
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert "text_video->video" in json.dumps(evaluation)
    table = tmp_path / "table.npz"
    assert (
        main(["embed", str(folder), f"--model={checkpoint}", f"--out={table}", "--cover_art=true", "--workers=0"]) == 0
    )
    with np.load(table) as rows:
        names = {str(Path(name).relative_to(folder)) for name in rows["ids"]}
        present = dict(zip(rows["ids"].tolist(), rows["video.present"].tolist(), strict=True))
    left = {
        str(Path(line["file"]).relative_to(folder))
        for line in map(json.loads, table.with_suffix(".rejects.jsonl").read_text().splitlines())
    }
    assert names | left == {*_GOOD, *_BAD} and not names & left
    # `embed` decodes what it samples, so that it may see no damage.
    assert left == set(_BAD) - {"downloads/film.mp4"} | (left & {"phone/half.mp4", "downloads/film.mp4"})
    assert present[str(folder / "album/01 Song.mp3")] and present[str(folder / "photos/IMG_0001.jpg")]


def test_videos_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sound x picture trains where there is no text at all, as the README says it; the whole recipe says what it lacks."""
    (tmp_path / "videos").mkdir()
    for number in range(6):
        inputs = [
            "-f",
            "lavfi",
            "-i",
            f"testsrc2=s=64x48:r=10:d=1,hue=h={60 * number}",
            "-f",
            "lavfi",
            "-i",
            f"sine={200 + 90 * number}:d=1",
        ]
        ffmpeg(*inputs, "-c:v", "libx264", "-threads", "1", "-c:a", "aac", str(tmp_path / f"videos/{number}.mp4"))
    data, run = tmp_path / "data", tmp_path / "run"
    assert main(["prepare", str(tmp_path / "videos"), str(data), "--reader=Folder", "--workers=0"]) == 0
    assert not (data / "tokenizer.json").exists()
    fit = [
        "fit",
        f"--config={_RECIPE}",
        f"--data.data={data}",
        f"--trainer.default_root_dir={run}",
        "--trainer.max_epochs=1",
    ]
    fit += ["--data.batch_size=3", "--trainer.enable_progress_bar=false"]
    with pytest.raises(SystemExit):
        main([*fit, f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}"])
    said = capfd.readouterr().err
    assert "`peav prepare` writes one beside the shards, where the clips have texts" in said and len(said) < 600
    assert main([*fit, f"--config={_EXPERIMENTS / 'without_text.yaml'}", f"--trainer.default_root_dir={run}"]) == 0
    checkpoint = str(run / "checkpoints/last.ckpt")
    assert main(["evaluate", checkpoint, str(data), f"--out={run}"]) == 1
    assert f"`peav data split {data} OUT` makes others of them" in capfd.readouterr().err
    assert main(["data", "split", str(data), str(tmp_path / "divided"), "--validation=0", "--test=0.5"]) == 0
    assert main(["evaluate", checkpoint, str(tmp_path / "divided"), f"--out={run}", "--num_workers=0"]) == 0
    assert set(json.loads((run / "evaluation.json").read_text())["directions"]) == {"audio->video", "video->audio"}
