#!/usr/bin/env bash
# Makes sure that FFmpeg 4 to 8 is there as a command and as shared libraries (torchcodec needs both); installs it where it may.
# scripts/ffmpeg.sh [PYTHON that has torchcodec]
set -eu

# Debian's ldconfig is not on the path of ordinary users.
PATH="$PATH:/usr/sbin:/sbin"
python="${1:-python3}"

# The loader's list is quick to ask; libraries that it does not know are found by loading them.
present() {
  command -v ffmpeg >/dev/null || return 1
  ldconfig -p 2>/dev/null | grep -q 'libavcodec\.so' || "$python" -c 'import torchcodec' 2>/dev/null
}

if present; then exit 0; fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo="none"; fi
fi
if [ "$sudo" != none ] && command -v apt-get >/dev/null; then
  echo "installing FFmpeg through apt-get"
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends ffmpeg >/dev/null
elif [ "$sudo" != none ] && command -v dnf >/dev/null; then
  echo "installing FFmpeg through dnf"
  $sudo dnf install -y -q ffmpeg-free
elif command -v brew >/dev/null; then
  echo "installing FFmpeg through brew"
  brew install -q ffmpeg
fi
if present; then exit 0; fi
cat >&2 <<'MESSAGE'
peav needs FFmpeg 4 to 8, the `ffmpeg` command and its shared libraries, and could not install it here. Install it and run make again:
  Debian, Ubuntu   sudo apt-get install ffmpeg
  Fedora           sudo dnf install ffmpeg-free
  macOS            brew install ffmpeg
  conda            conda install -c conda-forge ffmpeg
MESSAGE
exit 1
