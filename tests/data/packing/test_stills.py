"""Pictures through `prepare` and the loader: alone, beside sound, as covers; and clips of which a medium cannot be read."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from peav.data import ClipDataset, PrepareReport, prepare
from peav.data.loading.collate import collate
from peav.data.media.normalize import Normalize
from peav.types import VideoInput
from tests.data.conftest import cut_bytes, ffmpeg, write_records

#: Captions that fit what a record has.
_SEEN, _HEARD = {"video": "red and blue"}, {"audio": "a tone"}


def _picture() -> Image.Image:
    """Red to the left, blue to the right."""
    image = Image.new("RGB", (80, 60), "red")
    image.paste("blue", (40, 0, 80, 60))
    return image


@pytest.fixture(scope="module")
def source(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    for name in ("mono.wav", "half.wav", "good.mp4", "missing_video.mp4"):
        if (media / name).exists():
            (folder / name).symlink_to(media / name)
    picture = _picture()
    for ending in ("png", "jpg", "webp", "tif", "bmp", "gif"):
        picture.save(folder / f"a.{ending}")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=turned)
    cut_bytes(folder / "a.jpg", folder / "cut.jpg", 0.5)
    colours = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    colours[0].save(folder / "three.gif", save_all=True, append_images=colours[1:], duration=[20000, 20000, 5000])
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=8000:d=65", str(folder / "long.wav"))
    cover = ["-i", str(folder / "a.png"), "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", str(folder / "long.wav"), *cover, str(folder / "song.mp3"))
    ffmpeg("-i", str(folder / "mono.wav"), *cover, str(folder / "song.m4a"))
    ffmpeg("-i", str(folder / "mono.wav"), *cover, "-c:a", "flac", str(folder / "song.flac"))
    damaged = bytearray((folder / "good.mp4").read_bytes())
    place = damaged.find(b"mdat") + 1500  # inside the first, large picture
    damaged[place : place + 200] = bytes((7 * i + 13) % 256 for i in range(200))
    (folder / "damaged.mp4").write_bytes(damaged)
    # The same damage 5 s into a recording that is cut into clips.
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=96x96:r=12:d=9", "-i", str(folder / "long.wav"), "-t", "9"]
    ffmpeg(*inputs, "-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv420p", "-c:a", "aac", str(folder / "film.mp4"))
    show = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=pos,pts_time", "-of", "csv=p=0"]
    listed = subprocess.run([*show, str(folder / "film.mp4")], capture_output=True, text=True, check=True).stdout
    packets = [line.rstrip(",").split(",") for line in listed.splitlines()]
    place = next(int(pos) for time, pos in packets if float(time) == 5.0) + 1500
    film = bytearray((folder / "film.mp4").read_bytes())
    film[place : place + 200] = bytes((7 * i + 13) % 256 for i in range(200))
    (folder / "film.mp4").write_bytes(film)
    return folder


def _prepared(source: Path, out: Path, records: list[dict], **how: object) -> tuple[ClipDataset, PrepareReport]:
    listing = out.parent / f"{out.name}.jsonl"
    write_records(listing, records)
    report = prepare(source, out, captions=str(listing), workers=0, progress=False, **how)  # type: ignore[arg-type]
    return ClipDataset(out, "train", fields=["audio", "video", "captions.video"], num_frames=6, frame_size=32), report


def _rows(data: ClipDataset) -> dict[str, int]:
    return {data.clip(row).id: row for row in range(len(data))}


def _sides(frame: torch.Tensor) -> str:
    """What is left and what is right in a frame (3, H, W)."""
    middle = frame.shape[1] // 2 - 4
    return "".join("rgb"[int(frame[:, middle, column].argmax())] for column in (4, -5))


@pytest.mark.parametrize("normalize", [None, Normalize(video_size=48)])
def test_stills_alone_and_beside_sound(
    source: Path, tmp_path: Path, tokenize: Callable, normalize: Normalize | None
) -> None:
    kinds = [f"a.{ending}" for ending in ("png", "jpg", "webp", "tif", "bmp", "gif")]
    records: list[dict] = [{"id": name, "media": name, "captions": _SEEN} for name in kinds]
    records += [
        {"id": "turned", "video": "turned.jpg"},
        {"id": "five", "media": "a.png", "duration": 5.0},
        {"id": "both", "audio": "mono.wav", "video": "a.jpg", "captions": _SEEN | _HEARD},
        {"id": "long", "audio": "long.wav", "video": "a.png"},
        {"id": "span", "audio": "long.wav", "video": "a.png", "start": 3.0, "duration": 4.0},
        {"id": "film", "media": "good.mp4"},
        {"id": "cut", "media": "cut.jpg"},
    ]
    data, report = _prepared(source, tmp_path / "out", records, normalize=normalize, still_seconds=1.5)
    rows = _rows(data)
    assert [reject.reason for reject in report.rejects] == ["truncated: the JPEG picture ends early"]
    durations = {name: data.clip(row).duration for name, row in rows.items()}
    assert durations == pytest.approx(
        {**dict.fromkeys([*kinds, "turned"], 1.5), "five": 5.0, "both": 2.0, "span": 4.0, "film": 2.0}
        | {"long#0000": 30.0, "long#0001": 30.0, "long#0002": 5.0},
        abs=0.05,
    )
    if normalize is None:
        assert data.reader.sample(data.clip(rows["a.webp"])).source("video") == (source / "a.webp").read_bytes()
    # One picture is one picture, whatever sound it is beside.
    assert (
        len({data.clip(rows[name]).group("video") for name in ("a.png", "five", "long#0000", "long#0002", "span")}) == 1
    )
    batch = collate([data[row] for row in rows.values()], tokenize)
    assert isinstance(batch.video, VideoInput)
    frames = dict(
        zip(
            rows,
            zip(batch.video.frames, batch.video.mask, batch.video.frame_seconds.tolist(), strict=True),
            strict=True,
        )
    )
    for name, (some, mask, seconds) in frames.items():
        if name != "film":
            assert mask.sum() == 1 and seconds == pytest.approx(durations[name])
            assert _sides(some[0]) == ("rr" if name == "turned" else "rb"), name
    assert frames["film"][1].sum() == 6
    assert _sides(frames["turned"][0][0].transpose(1, 2)) == "rb"  # turned to the right: red is above
    assert batch.audio is not None and batch.audio.present.sum() == 6


def test_the_memory_of_decoded_clips_knows_stills(source: Path, tmp_path: Path) -> None:
    records = [{"id": "still", "media": "a.png"}, {"id": "film", "media": "good.mp4"}]
    _prepared(source, tmp_path / "out", records)
    kept = ClipDataset(tmp_path / "out", "train", fields=["video"], num_frames=6, frame_size=32, cache_megabytes=1)
    for row, count in ((0, 1), (1, 6)):
        first, second = kept[row].frames, kept[row].frames
        assert first is not None and second is not None
        assert len(first) == count and torch.equal(first, second)
    by_index = ClipDataset(tmp_path / "out", "train", fields=["video"], num_frames=6, frame_size=32, sampling="index")
    held = by_index[0]
    assert held.frames is not None and len(held.frames) == 6 and held.frame_seconds == pytest.approx(1 / 6)


@pytest.mark.parametrize("normalize", [None, Normalize(video_size=48)])
def test_animations(source: Path, tmp_path: Path, normalize: Normalize | None) -> None:
    records = [{"id": "three", "media": "three.gif"}]
    data, report = _prepared(source, tmp_path / "first", records, normalize=normalize)
    assert data.clip(0).is_still and "an animation, of which the first picture is taken" in report.notes[0].note
    # 45 s are cut into clips of 30 s, as every video is.
    data, report = _prepared(source, tmp_path / "all", records, normalize=normalize, animations="all")
    assert [data.clip(row).id for row in range(len(data))] == ["three#0000", "three#0001"] and not report.notes
    seen = [[_sides(frame)[0] for frame in data[row].frames] for row in range(2)]  # type: ignore[union-attr]
    assert seen == [list("rrrrgg"), list("ggggbb")]


@pytest.mark.parametrize("normalize", [None, Normalize(video_size=48)])
def test_cover_art_is_the_picture_where_it_is_asked_for(
    source: Path, tmp_path: Path, normalize: Normalize | None
) -> None:
    records = [{"id": name, "media": name} for name in ("song.mp3", "song.m4a", "song.flac", "mono.wav", "good.mp4")]
    data, report = _prepared(source, tmp_path / "plain", records, normalize=normalize)
    assert report.modalities == {"audio": 7, "video": 1, "audio_video": 1}
    data, report = _prepared(source, tmp_path / "covers", records, normalize=normalize, cover_art=True)
    assert report.modalities == {"audio": 7, "video": 6, "audio_video": 6} and not report.rejected
    for name, row in _rows(data).items():
        clip, decoded = data.clip(row), data[row]
        assert clip.is_still == name.startswith("song"), name
        if clip.is_still:
            assert decoded.frames is not None and _sides(decoded.frames[0]) == "rb"
        assert decoded.samples is not None and decoded.samples.abs().max() > 0.05
    assert not (tmp_path / "covers" / "scratch").exists()


@pytest.mark.parametrize("normalize", [None, Normalize(video_size=48)])
def test_a_clip_is_kept_without_a_medium_that_cannot_be_read(
    source: Path, tmp_path: Path, normalize: Normalize | None
) -> None:
    records: list[dict] = [
        {"id": "good", "media": "good.mp4"},
        {"id": "video", "media": "damaged.mp4", "captions": _SEEN | _HEARD},
        {"id": "picture", "audio": "mono.wav", "video": "cut.jpg"},
        {"id": "sound", "audio": "half.wav", "video": "a.png"},
        {"id": "silent", "audio": "a.png", "video": "good.mp4"},
        {"id": "film", "media": "film.mp4"},
        {"id": "none", "audio": "half.wav", "video": "cut.jpg"},
        {"id": "gone", "audio": "mono.wav", "video": "gone.jpg"},
        {"id": "late", "audio": "mono.wav", "video": "a.png", "start": 3.0},
    ]
    out = tmp_path / "out"
    data, report = _prepared(source, out, records, normalize=normalize, chunk_seconds=4)
    assert report.rejected == 8 and set(_rows(data)) == {"good", "film#0000", "film#0002"} and report.partial == {}
    data, report = _prepared(source, out, records, normalize=normalize, chunk_seconds=4, partial="keep", overwrite=True)
    rows = _rows(data)
    held = {name: (data.clip(row).has_audio, data.clip(row).has_video) for name, row in rows.items()}
    assert held == {
        **dict.fromkeys(("good", "film#0000", "film#0002"), (True, True)),
        **dict.fromkeys(("video", "picture", "film#0001"), (True, False)),
        **dict.fromkeys(("sound", "silent"), (False, True)),
    }
    assert {reject.id for reject in report.rejects} == {"none", "gone", "late"}
    assert report.partial == {"video": 3, "audio": 2}
    notes = [json.loads(line) for line in (out / "notes.jsonl").read_text().splitlines()]
    lost = {note["id"]: note["note"] for note in notes if note["lost"]}
    assert set(lost) == {"video", "picture", "film#0001", "sound", "silent"}
    assert lost["sound"].startswith("kept without its audio, which cannot be read: truncated: the wav header")
    assert "captions of type 'video', but the clip has no video" in {note["note"] for note in notes}
    assert data.clip(rows["sound"]).duration == 1.0  # of a still alone
    for name, row in rows.items():
        decoded = data[row]
        assert decoded.samples is not None and (decoded.samples.abs().max() > 0) == held[name][0]


def test_settings_that_cannot_be(source: Path, tmp_path: Path) -> None:
    for wrong in ({"partial": "maybe"}, {"animations": "last"}, {"still_seconds": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            prepare(source, tmp_path / "out", workers=0, progress=False, **wrong)
