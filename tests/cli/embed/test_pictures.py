"""`peav embed` on pictures, animations, covers, links and hidden files, against the same pictures given to `PEAV.embed`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peav.model import PEAV
from tests.cli.embed.helpers import noise, read, rejects, run
from tests.data.conftest import ffmpeg, write_wav


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "photos").mkdir()
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.webp"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(root / "photos" / name, lossless=True)
    colours = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    colours[0].save(root / "photos/c.gif", save_all=True, append_images=colours[1:], duration=500)
    data = (root / "photos/a.png").read_bytes()
    (root / "photos/cut.png").write_bytes(data[: len(data) // 2])
    (root / "photos/page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    write_wav(root / "tone.wav", noise(3.0, 1))
    cover = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg(
        "-i", str(root / "tone.wav"), "-i", str(root / "photos/a.png"), *cover, "-c:a", "flac", str(root / "song.flac")
    )
    (root / ".hidden").mkdir()
    write_wav(root / ".hidden/x.wav", noise(0.5, 2))
    return root


def test_pictures_of_a_folder(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert run(checkpoint, out, pictures) == 0
    table = read(out)
    names = [Path(name).name for name in table["ids"]]
    assert names == ["a.png", "b.webp", "c.gif", "song.flac", "tone.wav"]
    assert rejects(out) == {
        "cut.png": "truncated: the PNG picture ends early",
        "page.jpg": "is a web page, not a medium: what was to be downloaded was not",
    }
    assert table["video.present"].tolist() == [True, True, True, False, False]
    model = PEAV.from_pretrained(str(checkpoint))
    images = [Image.open(pictures / "photos" / name) for name in ("a.png", "b.webp", "c.gif")]
    # A list of one image is a video of one frame.
    same = model.embed(video=[[image] for image in images])["video"]
    by_path = model.embed(video=[str(pictures / "photos" / name) for name in ("a.png", "b.webp", "c.gif")])["video"]
    np.testing.assert_allclose(by_path, same, atol=1e-6)
    np.testing.assert_allclose(table["video"][:3], same, atol=1e-6)


def test_animations_and_covers_where_they_are_asked_for(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    files = [pictures / "photos/a.png", pictures / "photos/c.gif", pictures / "song.flac", pictures / "tone.wav"]
    assert run(checkpoint, out, *files, animations="all", cover_art=True) == 0
    table = read(out)
    assert table["video.present"].tolist() == [True, True, True, False]
    assert table["audio_video.present"].tolist() == [False, False, True, False]
    model = PEAV.from_pretrained(str(checkpoint))
    colours = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    np.testing.assert_allclose(table["video"][1], model.embed(video=colours)["video"][0], atol=1e-6)
    # 3 s are two windows of sound, and one picture beside both.
    np.testing.assert_allclose(table["video"][2], table["video"][0], atol=1e-6)
    both = model.embed(audio=str(pictures / "tone.wav"), video=str(pictures / "photos/a.png"))
    np.testing.assert_allclose(table["audio_video"][2], both["audio_video"][0], atol=1e-5)


def test_frames_of_a_still_by_time_and_by_index(checkpoint: Path, pictures: Path) -> None:
    model, path = PEAV.from_pretrained(str(checkpoint)), str(pictures / "photos/a.png")
    image = Image.open(path)
    once, thrice = model.embed(video=[image])["video"], model.embed(video=[image] * 3)["video"]
    found = model.embed(video=path)["video"]
    by_index = model.media.sampling == "index"
    np.testing.assert_allclose(found, thrice if by_index else once, atol=1e-6)
    np.testing.assert_allclose(
        model.embed(video=path, fps=2.0)["video"], model.embed(video=path, num_frames=1)["video"], atol=1e-6
    )


def test_links_are_followed_once_and_what_is_hidden_is_not(checkpoint: Path, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "media", tmp_path / "elsewhere"
    (root / "real/.cache").mkdir(parents=True)
    elsewhere.mkdir()
    for seed, path in enumerate(
        (root / "real/a.wav", root / "real/.cache/b.wav", root / ".c.wav", elsewhere / "d.wav")
    ):
        write_wav(path, noise(0.5, seed))
    (root / "also").symlink_to(root / "real")  # sorts before the real one
    (root / "circle").symlink_to(root)
    (root / "disk").symlink_to(elsewhere)
    (root / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    out = tmp_path / "out.npz"
    assert run(checkpoint, out, root) == 0
    assert [str(Path(name).relative_to(root)) for name in read(out)["ids"]] == ["disk/d.wav", "real/a.wav"]
