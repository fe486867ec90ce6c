#!/usr/bin/env bash
# Makes sure that a Chromium is there in which the pages of `peav serve` and `peav ab` are tested; installs it where it may.
# Debian's plays H.264 and AAC, which Playwright's own build does not.
set -eu

present() {
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

if present; then exit 0; fi
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo="none"; fi
fi
if [ "$sudo" != none ] && command -v apt-get >/dev/null; then
  echo "installing Chromium through apt-get"
  $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null || true
elif [ "$sudo" != none ] && command -v dnf >/dev/null; then
  echo "installing Chromium through dnf"
  $sudo dnf install -y -q chromium || true
fi
if present; then exit 0; fi
cat >&2 <<'MESSAGE'
There is no Chromium, and it could not be installed here: the tests of the pages of peav serve and peav ab are left out. To run them:
  Debian           sudo apt-get install chromium
  Fedora           sudo dnf install chromium
  macOS, Ubuntu    install Google Chrome
MESSAGE
