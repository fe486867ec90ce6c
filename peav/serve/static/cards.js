// Cards: one a file, with a picture or a waveform, and its moments.

import { address, clock, make, span } from "./ask.js";
import { draw, outline } from "./wave.js";

// Only what comes into sight is made.
const watched = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watched.unobserve(entry.target);
      entry.target.dispatchEvent(new CustomEvent("seen"));
    }
  },
  { rootMargin: "200px" },
);

// So few at once that the connections which a browser has for a server are not all taken when something is to be played.
const AT_ONCE = 3;
let running = 0;
const waiting = [];

async function turn(work) {
  if (running >= AT_ONCE) await new Promise((go) => waiting.push(go));
  running++;
  try {
    await work();
  } finally {
    running--;
    waiting.shift()?.();
  }
}

/** Makes the card of a file; `play(card, number)` and `like(window, name)` are what its buttons do. */
export function makeCard(card, rank, sum, play, like) {
  const { file, moments } = card;
  const face = make("span", { className: "face", "aria-hidden": "true" });
  const first = moments[0];
  const [begin, end] = span(first);
  if (file.kind !== "picture") face.append(make("span", { className: "when", textContent: clock(begin) }));
  face.addEventListener("seen", () => turn(() => fill(face, file, first)), { once: true });
  watched.observe(face);
  const score = make("span", { className: "score", textContent: words(card, sum) });
  const when = file.kind === "picture" ? "a picture" : `from ${clock(begin)} to ${clock(end)}`;
  const label = `${rank}. ${file.name}, ${when}, ${score.textContent}. Play`;
  const show = make(
    "button",
    { className: "show", type: "button", "aria-label": label },
    face,
    make(
      "span",
      { className: "words" },
      make("span", { className: "name", textContent: file.name }),
      make("span", { className: "place", textContent: file.place }),
      score,
    ),
  );
  show.addEventListener("click", () => play(card, 0));
  const row = make("div", { className: "row" });
  moments.slice(1, 5).forEach((moment, number) => {
    const button = make("button", { type: "button", textContent: clock(span(moment)[0]) });
    button.setAttribute("aria-label", `Play ${file.name} from ${clock(span(moment)[0])}`);
    button.addEventListener("click", () => play(card, number + 1));
    row.append(button);
  });
  const more = make("button", { type: "button", textContent: "Like this" });
  more.setAttribute("aria-label", `More like ${file.name}`);
  more.addEventListener("click", () => like(first.window, file.name));
  row.append(more);
  if (card.duplicates.length) {
    const others = make("span", { className: "place", textContent: `and ${card.duplicates.length} nearly the same` });
    others.title = card.duplicates.join("\n");
    row.append(others);
  }
  return make("li", {}, make("article", { className: "card" }, show, row));
}

function words(card, sum) {
  const score = `${sum ? "sum of standard scores" : "score"} ${card.score.toFixed(2)}`;
  return card.match === null ? score : `match ${Math.round(card.match * 100)} %, ${score}`;
}

async function fill(face, file, moment) {
  if (!face.isConnected) return; // something else was sought meanwhile
  const sound = file.kind !== "picture" && outline(address("/api/peaks", file, moment.start, moment.seconds));
  let pictured = false;
  if (file.kind !== "sound") {
    const image = make("img", { alt: "", decoding: "async" });
    image.src =
      file.kind === "picture" ? `/thumbnail/${file.id}` : address("/thumbnail", file, moment.start, moment.seconds);
    pictured = await new Promise((done) => {
      image.addEventListener("load", () => done(true));
      image.addEventListener("error", () => done(false));
      face.prepend(image);
    });
    if (!pictured) image.remove();
  }
  const found = await sound;
  if (!found || !found.peaks.length) return;
  const canvas = make("canvas", { className: pictured ? "below" : "" });
  face.append(canvas);
  const paint = () => draw(canvas, found, { colour: pictured ? "#ffffff" : null });
  paint();
  new ResizeObserver(paint).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}
