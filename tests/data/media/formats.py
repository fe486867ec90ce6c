"""A table of the media that people have, each made by FFmpeg's command line or by cutting and joining what that made."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.data.conftest import ffmpeg

SECONDS = 5.0
FPS = 25

#: Every picture has a brightness of its own among its neighbours, which the coarsest codec keeps.
LEVELS = "16+mod(N*53,200)"


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: of the file.
        make: writes it, given its path.
        lossless: samples are held to 1e-3; else to a correlation, without lag.
        audio: which of the tracks of sound FFmpeg is asked for; None where there is none.
        video: which of the tracks of pictures; None where there is none.
        seconds: how long it is.
        timed: whether FFmpeg is asked to follow the time stamps; it puts in silence once more where the rate changes.
    """

    name: str
    make: Callable[[Path], None]
    lossless: bool = False
    audio: int | None = 0
    video: int | None = None
    seconds: float = SECONDS
    timed: bool = True


def sweep(rate: int = 48000, channels: int = 1, seconds: float = SECONDS, first: float = 200) -> list[str]:
    """A sweep, another in each channel, so that every instant and every channel differs."""
    top = rate / 8
    parts = [
        f"0.25*sin(2*PI*({first + 60 * index}+{(top - first) / (4 * seconds)}*t)*t)+0.05*sin(t*{7 + index})"
        for index in range(channels)
    ]
    layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}[channels]
    return ["-f", "lavfi", "-i", f"aevalsrc={'|'.join(parts)}:s={rate}:d={seconds}:c={layout}"]


def pattern(fps: str = str(FPS), seconds: float = SECONDS, size: str = "64x48") -> list[str]:
    """Pictures each of one brightness."""
    source = f"color=black:s={size}:r={fps}:d={seconds},format=gray,geq=lum='{LEVELS}',format=yuv420p"
    return ["-f", "lavfi", "-i", source]


def sound(*codec: str, rate: int = 48000, channels: int = 1, seconds: float = SECONDS) -> Callable[[Path], None]:
    return lambda path: ffmpeg(*sweep(rate, channels, seconds), *codec, str(path))


def both(*codec: str, fps: str = str(FPS), rate: int = 48000, channels: int = 1) -> Callable[[Path], None]:
    return lambda path: ffmpeg(*pattern(fps), *sweep(rate, channels), *codec, "-threads", "1", str(path))


def silent(*codec: str, fps: str = str(FPS)) -> Callable[[Path], None]:
    return lambda path: ffmpeg(*pattern(fps), *codec, "-threads", "1", str(path))


def piped(form: str, *codec: str, rate: int = 48000, video: bool = False) -> Callable[[Path], None]:
    """Written to a pipe, so that no header can be mended at the end."""

    def make(path: Path) -> None:
        source = [*(pattern() if video else []), *sweep(rate)]
        command = ["ffmpeg", "-nostdin", "-v", "error", *source, *codec, "-f", form, "-"]
        path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)

    return make


def gap(*codec: str) -> Callable[[Path], None]:
    """The sound lacks the seconds 2 to 4."""

    def make(path: Path) -> None:
        drop = ["-af", "aselect='not(between(t,2,3.999))'", *codec, "-threads", "1"]
        ffmpeg(*pattern(), *sweep(), *drop, str(path))

    return make


def joined(ending: str, *parts: tuple[list[str], list[str]]) -> Callable[[Path], None]:
    """Files one after the other, as `cat` joins them; each is a source and its codec."""

    def make(path: Path) -> None:
        data = b""
        for number, (source, codec) in enumerate(parts):
            part = path.with_name(f"{path.stem}-part{number}.{ending}")
            ffmpeg(*source, *codec, str(part))
            data += part.read_bytes()
            part.unlink()
        path.write_bytes(data)

    return make


def two_sounds(*codec: str) -> Callable[[Path], None]:
    """Two tracks of sound, the second one marked as the default."""

    def make(path: Path) -> None:
        sources = [*pattern(), *sweep(first=200), *sweep(first=700)]
        maps = ["-map", "0", "-map", "1", "-map", "2", "-disposition:a:0", "0", "-disposition:a:1", "default"]
        ffmpeg(*sources, *maps, *codec, "-threads", "1", str(path))

    return make


def two_videos(path: Path) -> None:
    """Two tracks of pictures, the second one marked as the default."""
    other = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r={FPS}:d={SECONDS}"]
    maps = ["-map", "0", "-map", "1", "-map", "2", "-disposition:v:0", "0", "-disposition:v:1", "default"]
    ffmpeg(*other, *pattern(), *sweep(), *maps, "-c:v", "libx264", "-c:a", "flac", "-threads", "1", str(path))


def cover_first(path: Path) -> None:
    """A picture as first track, which nothing marks as a cover, then a video."""
    still = ["-f", "lavfi", "-i", "color=red:s=320x240:r=1:d=1"]
    maps = ["-map", "0:v", "-map", "1", "-map", "2", "-c:v:0", "mjpeg", "-c:v:1", "libx264"]
    ffmpeg(*still, *pattern(), *sweep(), *maps, "-c:a", "alac", "-threads", "1", str(path))


def cover_short(path: Path) -> None:
    """A picture as first track, a video, and sound that starts late and ends before the video does."""
    still = ["-f", "lavfi", "-i", "color=red:s=320x240:r=1:d=1"]
    maps = ["-map", "0:v", "-map", "1", "-map", "2", "-c:v:0", "mjpeg", "-c:v:1", "libx264"]
    late = ["-itsoffset", "0.7", *sweep(seconds=3)]
    ffmpeg(*still, *pattern(), *late, *maps, "-c:a", "flac", "-threads", "1", str(path))


def high_efficiency(path: Path) -> None:
    """HE-AAC by its header, which doubles the rate; its packets hold no upper band, since FFmpeg does not encode any."""
    ffmpeg(*sweep(24000), "-c:a", "aac", "-b:a", "96k", str(path))
    # Object type (5: SBR), 24 kHz, one channel, 48 kHz, the object type below (2: LC), and three bits of its own.
    bits = "".join(("00101", "0110", "0001", "0011", "00010", "000"))
    config = int(bits.ljust(40, "0"), 2).to_bytes(5, "big")

    def change(data: bytearray) -> None:
        at = data.index(b"\x05\x80\x80\x80\x05", data.index(b"esds")) + 5
        data[at : at + 5] = config

    edited(path, change)


def adaptive(head: bytes, mode: int, size: int) -> Callable[[Path], None]:
    """AMR, which FFmpeg does not encode: five seconds of packets of chance."""

    def make(path: Path) -> None:
        draw = np.random.default_rng(1)
        bare = path.with_suffix(".amr")
        bare.write_bytes(head + b"".join(bytes([mode << 3 | 4]) + draw.bytes(size) for _ in range(250)))
        if path != bare:
            ffmpeg("-i", str(bare), "-c", "copy", str(path))
            bare.unlink()

    return make


def resized(path: Path) -> None:
    """Pictures whose size changes in the middle."""
    half = SECONDS / 2
    lists = ""
    for number, size in enumerate(("64x48", "96x80")):
        part = path.with_name(f"{path.stem}-part{number}.ts")
        ffmpeg(*pattern(seconds=half, size=size), "-c:v", "libx264", "-threads", "1", str(part))
        lists += f"file '{part}'\n"
    index = path.with_suffix(".txt")
    index.write_text(lists)
    ffmpeg("-f", "concat", "-safe", "0", "-i", str(index), "-c", "copy", str(path))
    index.unlink()
    for number in range(2):
        path.with_name(f"{path.stem}-part{number}.ts").unlink()


def variable(path: Path) -> None:
    """Pictures that stay for 0.04 to 0.4 s."""
    drop = f"color=black:s=64x48:r={FPS}:d={SECONDS},format=gray,geq=lum='{LEVELS}'"
    drop += ",select='not(mod(n,3))*not(between(n,40,55))',format=yuv420p"
    codecs = ["-fps_mode", "vfr", "-c:v", "libx264", "-c:a", "aac", "-threads", "1"]
    ffmpeg("-f", "lavfi", "-i", drop, *sweep(), *codecs, str(path))


def late(stream: str, *codec: str) -> Callable[[Path], None]:
    """A stream that starts 0.7 s after the other."""

    def make(path: Path) -> None:
        offset = ["-itsoffset", "0.7"]
        video, audio = ([*offset, *pattern()], sweep()) if stream == "video" else (pattern(), [*offset, *sweep()])
        ffmpeg(*video, *audio, *codec, "-threads", "1", str(path))

    return make


def edited(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def endless_wav(length: int) -> Callable[[Path], None]:
    """A wav whose header announces a length that means that nobody knew it."""

    def make(path: Path) -> None:
        ffmpeg(*sweep(), "-c:a", "pcm_s16le", str(path))

        def change(data: bytearray) -> None:
            at = data.index(b"data") + 4
            data[at : at + 4] = struct.pack("<I", length)

        edited(path, change)

    return make


def unmarked_ogg(*codec: str) -> Callable[[Path], None]:
    """An ogg without the mark on its last page."""

    def make(path: Path) -> None:
        ffmpeg(*sweep(), *codec, str(path))
        edited(path, lambda data: data.__setitem__(slice(data.rindex(b"OggS"), None), b""))

    return make


def rate_change(path: Path) -> None:
    """Two mp3 of another rate one after the other, without tags between them."""
    bare = ["-c:a", "libmp3lame", "-b:a", "128k", "-write_xing", "0", "-id3v2_version", "0"]
    joined("mp3", (sweep(44100, seconds=2.5), bare), (sweep(48000, seconds=2.5), bare))(path)


def swinging(path: Path) -> None:
    """An mp3 of variable rate without a header that says so: a tone, then noise."""
    tone, noise = "sine=f=440:d=10:r=44100", "anoisesrc=d=10:r=44100:a=0.3:seed=1"
    graph = ["-filter_complex", "[0][1]concat=n=2:v=0:a=1"]
    codec = ["-c:a", "libmp3lame", "-q:a", "0", "-write_xing", "0", "-id3v2_version", "0"]
    ffmpeg("-f", "lavfi", "-i", tone, "-f", "lavfi", "-i", noise, *graph, *codec, str(path))


_H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
_MP3 = ("-c:a", "libmp3lame", "-b:a", "128k")

FORMATS = [
    # PCM and lossless codecs, of all widths.
    Format("pcm_u8.wav", sound("-c:a", "pcm_u8", rate=8000), True),
    Format("pcm_s16.wav", sound("-c:a", "pcm_s16le", channels=2), True),
    Format("pcm_s24.wav", sound("-c:a", "pcm_s24le", rate=96000, channels=2), True),
    Format("pcm_s32.wav", sound("-c:a", "pcm_s32le", rate=44100), True),
    Format("pcm_f32.wav", sound("-c:a", "pcm_f32le", rate=192000), True),
    Format("loud_f32.wav", sound("-af", "volume=5", "-c:a", "pcm_f32le"), True),
    Format("pcm_f64.wav", sound("-c:a", "pcm_f64le", rate=22050), True),
    Format("alaw.wav", sound("-c:a", "pcm_alaw", rate=8000), True),
    Format("mulaw.au", sound("-c:a", "pcm_mulaw", rate=8000), True),
    Format("quad.wav", sound("-c:a", "pcm_s16le", channels=4), True),
    Format("surround.wav", sound("-c:a", "pcm_s16le", channels=6), True),
    Format("eight.wav", sound("-c:a", "pcm_s24le", channels=8), True),
    Format("rf64.wav", sound("-c:a", "pcm_s16le", "-rf64", "always"), True),
    Format("w64.w64", sound("-c:a", "pcm_s16le"), True),
    Format("aiff.aiff", sound("-c:a", "pcm_s16be", rate=44100, channels=2), True),
    Format("caf.caf", sound("-c:a", "pcm_s24le", rate=44100), True),
    Format("flac.flac", sound("-c:a", "flac", rate=44100, channels=2), True),
    Format("surround.flac", sound("-c:a", "flac", channels=6), True),
    Format("alac.m4a", sound("-c:a", "alac", rate=44100, channels=2), True),
    Format("wavpack.wv", sound("-c:a", "wavpack", channels=2), True),
    Format("tta.tta", sound("-c:a", "tta", channels=2), True),
    Format("pcm.mka", sound("-c:a", "pcm_s16le"), True),
    # Lossy ones, as they should be.
    Format("mp3.mp3", sound(*_MP3, rate=44100, channels=2)),
    Format("vbr.mp3", sound("-c:a", "libmp3lame", "-q:a", "2", rate=44100)),
    Format("low.mp3", sound("-c:a", "libmp3lame", "-b:a", "32k", rate=16000)),
    Format("mp2.mp2", sound("-c:a", "mp2", channels=2)),
    Format("aac.m4a", sound("-c:a", "aac", "-b:a", "192k", channels=2)),
    Format("book.m4b", sound("-c:a", "aac", "-f", "mp4", rate=22050)),
    Format("surround.m4a", sound("-c:a", "aac", "-b:a", "384k", channels=6)),
    Format("adts.aac", sound("-c:a", "aac", "-b:a", "128k", rate=44100)),
    Format("vorbis.ogg", sound("-c:a", "libvorbis", "-b:a", "128k", rate=44100)),
    Format("opus.opus", sound("-c:a", "libopus", "-b:a", "128k")),
    Format("voice.ogg", sound("-c:a", "libopus", "-b:a", "48k", "-application", "voip", rate=16000)),
    Format("surround.opus", sound("-c:a", "libopus", "-b:a", "384k", channels=6)),
    Format("speex.spx", sound("-c:a", "libspeex", rate=16000)),
    Format("narrow.spx", sound("-c:a", "libspeex", rate=8000)),
    Format("stereo.spx", sound("-c:a", "libspeex", rate=32000, channels=2)),
    Format("efficient.m4a", high_efficiency),
    Format("voice.amr", adaptive(b"#!AMR\n", 0, 12)),
    Format("voice.3gp", adaptive(b"#!AMR\n", 0, 12)),
    Format("wma.wma", sound("-c:a", "wmav2", "-b:a", "128k", rate=44100)),
    Format("ac3.ac3", sound("-c:a", "ac3", "-b:a", "384k", channels=6)),
    Format("eac3.eac3", sound("-c:a", "eac3", "-b:a", "256k", channels=2)),
    Format("dts.dts", sound("-c:a", "dca", "-strict", "-2", "-b:a", "768k", channels=2)),
    Format("gsm.wav", sound("-c:a", "libgsm_ms", rate=8000)),
    Format("adpcm_ima.wav", sound("-c:a", "adpcm_ima_wav", rate=22050)),
    Format("adpcm_ms.wav", sound("-c:a", "adpcm_ms", rate=22050, channels=2)),
    Format("g722.wav", sound("-c:a", "g722", rate=16000)),
    Format("mp3.wav", sound("-c:a", "libmp3lame", "-f", "wav", rate=44100)),
    Format("opus.webm", sound("-c:a", "libopus", "-b:a", "128k", "-f", "webm")),
    # Matroska's packets do not say how long they last, but where the codec does.
    Format("alac.mka", sound("-c:a", "alac"), True),
    Format("aac.mka", sound("-c:a", "aac")),
    Format("wavpack.mka", sound("-c:a", "wavpack"), True),
    Format("vorbis.mka", sound("-c:a", "libvorbis", rate=44100)),
    # Lengths that headers do not know, ends without a mark, files joined by `cat`.
    Format("piped.flac", piped("flac", "-c:a", "flac"), True),
    Format("piped.wav", piped("wav", "-c:a", "pcm_s16le"), True),
    Format("piped.mka", piped("matroska", "-c:a", "flac"), True),
    Format("piped.webm", piped("webm", "-c:a", "libopus", "-c:v", "libvpx", video=True), video=0),
    Format(
        "fragments.mp4",
        piped("mp4", *_H264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", video=True),
        video=0,
    ),
    Format("endless.wav", endless_wav(0x7FFFF000), True),
    Format("endless2.wav", endless_wav(0xFFFFFFFF), True),
    Format("zero.wav", endless_wav(0), True),
    Format("unmarked.ogg", unmarked_ogg("-c:a", "libvorbis")),
    Format("unmarked.opus", unmarked_ogg("-c:a", "libopus")),
    Format("swinging.mp3", swinging, seconds=20.0),
    Format("cbr_bare.mp3", sound(*_MP3, "-write_xing", "0", "-id3v2_version", "0", rate=44100)),
    Format(
        "joined.ogg",
        joined("ogg", *((sweep(seconds=3, first=f), ["-c:a", "libvorbis"]) for f in (200, 500))),
        seconds=6,
    ),
    Format(
        "joined.opus",
        joined("opus", *((sweep(seconds=3, first=f), ["-c:a", "libopus"]) for f in (200, 500))),
        seconds=6,
    ),
    Format("joined.mp3", joined("mp3", *((sweep(44100, seconds=3, first=f), [*_MP3]) for f in (200, 500))), seconds=6),
    Format("joined.aac", joined("aac", *((sweep(seconds=3, first=f), ["-c:a", "aac"]) for f in (200, 500))), seconds=6),
    Format("rates.mp3", rate_change, timed=False),
    # Moving pictures.
    Format("plain.mp4", both(*_H264, "-c:a", "aac"), video=0),
    Format("lossless.mp4", both(*_H264, "-c:a", "alac"), True, video=0),
    Format(
        "hevc.mp4", both("-c:v", "libx265", "-x265-params", "log-level=none", "-tag:v", "hvc1", "-c:a", "aac"), video=0
    ),
    Format("prores.mov", both("-c:v", "prores_ks", "-c:a", "pcm_s16le"), True, video=0),
    Format("ntsc.mov", both(*_H264, "-c:a", "aac", fps="30000/1001"), video=0),
    Format("phone.3gp", both("-c:v", "mpeg4", "-c:a", "aac", rate=32000), video=0),
    Format("silent.mp4", silent(*_H264), audio=None, video=0),
    Format("silent.gif.mkv", silent("-c:v", "ffv1"), audio=None, video=0),
    Format("h264.mkv", both(*_H264, "-c:a", "aac"), video=0),
    Format("flac.mkv", both(*_H264, "-c:a", "flac"), True, video=0),
    Format("surround.mkv", both(*_H264, "-c:a", "ac3", "-b:a", "384k", channels=6), video=0),
    Format(
        "vp9.webm", both("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime", "-c:a", "libopus"), video=0
    ),
    Format("flv.flv", both(*_H264, "-c:a", "aac", rate=44100), video=0),
    Format("mp3.flv", both("-c:v", "flv", "-c:a", "libmp3lame", rate=44100), video=0),
    Format("transport.ts", both(*_H264, "-c:a", "aac"), video=0),
    Format("program.mpg", both("-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"), video=0),
    Format("windows.wmv", both("-c:v", "wmv2", "-c:a", "wmav2"), video=0),
    Format("theora.ogv", both("-c:v", "libtheora", "-q:v", "8", "-c:a", "libvorbis"), video=0),
    Format("bframes.avi", both("-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"), video=0),
    Format("h264.avi", both(*_H264, "-bf", "2", "-c:a", "pcm_s16le"), True, video=0),
    Format("xvid.avi", both("-c:v", "libxvid", "-bf", "2", "-c:a", "libmp3lame"), video=0),
    Format("mjpeg.avi", both("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"), True, video=0),
    # Time stamps that say more than the samples.
    Format("variable.mp4", variable, video=0),
    Format("variable.mkv", variable, video=0),
    Format("gap.mkv", gap(*_H264, "-c:a", "flac"), True, video=0),
    Format("gap.webm", gap("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"), video=0),
    Format("gap.mp4", gap(*_H264, "-c:a", "aac"), video=0),
    Format("gap.mov", gap(*_H264, "-c:a", "alac"), True, video=0),
    Format("gap.m4a", gap("-vn", "-c:a", "aac")),
    Format("gap_aac.mka", gap("-vn", "-c:a", "aac")),
    Format("gap.ogg", gap("-vn", "-c:a", "libvorbis")),
    Format("gap.opus", gap("-vn", "-c:a", "libopus")),
    Format("gap.mka", gap("-vn", "-c:a", "flac"), True),
    Format("gap.ts", gap(*_H264, "-c:a", "aac"), video=0),
    Format("late_audio.mp4", late("audio", *_H264, "-c:a", "alac"), True, video=0),
    Format("late_audio.mkv", late("audio", *_H264, "-c:a", "flac"), True, video=0),
    Format("late_alac.mkv", late("audio", *_H264, "-c:a", "alac"), True, video=0),
    Format("late_video.mp4", late("video", *_H264, "-c:a", "alac"), True, video=0),
    Format("late_video.mkv", late("video", *_H264, "-c:a", "flac"), True, video=0),
    Format("negative.mkv", both(*_H264, "-c:a", "libopus", "-avoid_negative_ts", "disabled"), video=0),
    # Which track, and tracks that change.
    Format("second.mkv", two_sounds(*_H264, "-c:a", "flac"), True, audio=1, video=0),
    Format("second.mp4", two_sounds(*_H264, "-c:a", "alac"), True, audio=1, video=0),
    Format("second_video.mkv", two_videos, True, video=1),
    Format("cover_first.mkv", cover_first, True, video=1),
    Format("cover_first.mp4", cover_first, True, video=1),
    Format("cover_short.mkv", cover_short, True, video=1),
    Format("resized.mkv", resized, audio=None, video=0),
    Format("resized.mp4", resized, audio=None, video=0),
]


def native_rate(path: Path) -> int:
    """Asks ffprobe for the rate of the first sound."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "a:0",
        "-show_entries",
        "stream=sample_rate",
        "-of",
        "csv=p=0",
    ]
    return int(
        subprocess.run([*command, str(path)], check=True, capture_output=True, text=True).stdout.split()[0].strip(",")
    )


def first_stamp(path: Path) -> float:
    """Asks ffprobe for the first time stamp of a file, seconds."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format=start_time", "-of", "csv=p=0", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return 0.0 if text in ("", "N/A") else float(text)


def heard_by_ffmpeg(path: Path, track: int, rate: int, timed: bool = True) -> Tensor:
    """Decodes a whole sound by FFmpeg's command line alone: (S,) float32."""
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-i", str(path), "-map", f"0:a:{track}"]
    command += [
        *(["-af", "aresample=async=1:first_pts=0"] if timed else []),
        "-ac",
        "1",
        "-ar",
        str(rate),
        "-f",
        "f32le",
        "-",
    ]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    return torch.from_numpy(np.frombuffer(data, "<f4").copy())


def seen_by_ffmpeg(path: Path, track: int) -> tuple[list[float], Tensor]:
    """Decodes all pictures by FFmpeg's command line alone: their times in seconds and brightness (F,)."""
    base = ["ffmpeg", "-nostdin", "-v", "quiet", "-i", str(path), "-map", f"0:v:{track}", "-fps_mode", "passthrough"]
    base += ["-vf", "scale=8:8:flags=area,format=rgb24", "-enc_time_base", "-1"]
    listing = subprocess.run(
        [*base, "-c:v", "rawvideo", "-f", "framecrc", "-"], check=True, capture_output=True, text=True
    ).stdout
    ticks = next(line for line in listing.splitlines() if line.startswith("#tb")).split(":")[1].strip().split("/")
    rows = [line.split(",") for line in listing.splitlines() if not line.startswith("#")]
    times = [int(row[2]) * int(ticks[0]) / int(ticks[1]) for row in rows]
    data = subprocess.run([*base, "-f", "rawvideo", "-"], check=True, capture_output=True).stdout
    return times, torch.from_numpy(np.frombuffer(data, np.uint8).reshape(len(rows), -1).mean(1))
