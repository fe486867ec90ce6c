// Waveforms: outlines of sound on a canvas, in the colours of the page.

import { ask } from "./ask.js";

const known = new Map();

/** The outline of a span's sound; null if there is none. */
export async function outline(where) {
  if (!known.has(where)) {
    if (known.size > 300) known.delete(known.keys().next().value);
    known.set(where, ask(where).catch(() => null));
  }
  return known.get(where);
}

/** Draws an outline; `marks` are parts of it from 0 to 1, `place` the position played. */
export function draw(canvas, found, { mark = null, place = null, colour = null } = {}) {
  const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const style = getComputedStyle(document.documentElement);
  const paint = canvas.getContext("2d");
  paint.clearRect(0, 0, width, height);
  const accent = colour || style.getPropertyValue("--accent").trim();
  const muted = colour || style.getPropertyValue("--muted").trim();
  if (mark) {
    paint.globalAlpha = 0.18;
    paint.fillStyle = accent;
    paint.fillRect(mark[0] * width, 0, Math.max(2, (mark[1] - mark[0]) * width), height);
    paint.globalAlpha = 1;
  }
  const peaks = found?.peaks || [];
  const loudest = Math.max(0.02, ...peaks);
  const step = width / Math.max(1, peaks.length);
  peaks.forEach((peak, number) => {
    const part = (number + 0.5) / peaks.length;
    paint.fillStyle = !mark || (part >= mark[0] && part <= mark[1]) ? accent : muted;
    const tall = Math.max(devicePixelRatio, (peak / loudest) * height * 0.92);
    paint.fillRect(number * step, (height - tall) / 2, Math.max(1, step * 0.7), tall);
  });
  if (place !== null && place >= 0 && place <= 1) {
    paint.fillStyle = style.getPropertyValue("--ink").trim();
    paint.fillRect(place * width - devicePixelRatio, 0, 2 * devicePixelRatio, height);
  }
}
