// The player: starts at a moment, plays it again and again, and goes on from there.

import { address, ask, clock, make, span } from "./ask.js";
import { draw, outline } from "./wave.js";

const AROUND = 4; // seconds of sound that the waveform shows beside the moment
const SHORTEST = 0.6; // seconds; a shorter moment is played with what is around it

const $ = (id) => document.getElementById(id);

export class Player {
  /** `say` shows a message, `chosen` is told which moment plays, `words` returns what is sought in what is heard. */
  constructor(say, chosen, words) {
    this.say = say;
    this.words = words;
    this.chosen = chosen;
    this.media = $("media");
    this.canvas = $("wave");
    this.card = null;
    this.looping = true;
    this.opened = 0;
    this.media.addEventListener("loadedmetadata", () => this.jump());
    this.media.addEventListener("error", () => this.fail());
    this.media.addEventListener("ended", () => this.looping && this.again());
    for (const event of ["play", "pause", "seeked", "timeupdate"]) this.media.addEventListener(event, () => this.paint());
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("keydown", (event) => this.nudge(event));
    $("play").addEventListener("click", () => this.toggle());
    $("loop").addEventListener("click", () => this.loop());
    addEventListener("resize", () => this.paint());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  /** Opens a moment of a card and plays it. */
  async open(card, number) {
    const turn = ++this.opened;
    const moment = card.moments[number];
    this.stop();
    Object.assign(this, { card, number, moment, offset: 0, ready: false, wave: null, about: null });
    $("player").hidden = false;
    if ($("player").getBoundingClientRect().top < 0) $("player").scrollIntoView();
    $("player").classList.toggle("sound", card.file.kind === "sound");
    $("title").textContent = card.file.name;
    $("detail").textContent = card.file.path || card.file.place;
    $("known").hidden = !(card.file.transcript || card.file.captions);
    $("transcript").textContent = [card.file.transcript, card.file.captions].filter(Boolean).join(" · ");
    this.list();
    const picture = card.file.kind === "picture";
    this.media.hidden = picture;
    $("still").hidden = !picture;
    for (const id of ["wave", "play", "loop", "clock"]) $(id).hidden = picture;
    [this.begin, this.end] = this.bounds(moment);
    try {
      this.about = await ask(`/api/file/${card.file.id}`);
    } catch (error) {
      if (turn === this.opened) this.say(error.message, true);
      return;
    }
    if (turn !== this.opened) return;
    if (picture) {
      $("still").src = `/thumbnail/${card.file.id}?large=1`;
      $("still").alt = card.file.name;
      return;
    }
    const native = this.about.plays === "original" && this.media.canPlayType(this.about.type) !== "";
    this.load(native ? "original" : "rendition");
    this.show(turn);
    if (moment.begin === null && this.about.sound) this.listen(turn);
  }

  /** Asks when within the moment it is heard, and plays that. */
  async listen(turn) {
    const words = this.words();
    if (!words) return;
    const { card, moment } = this;
    const where = `${address("/api/when", card.file, moment.start, moment.seconds)}&${words}`;
    const found = await ask(where).catch(() => ({ begin: null }));
    if (found.begin === null) return;
    Object.assign(moment, found);
    if (turn !== this.opened) return;
    [this.begin, this.end] = this.bounds(moment);
    this.list();
    if (this.ready && !this.media.paused) this.again();
    this.show(turn);
  }

  /** What is played of a moment. */
  bounds(moment) {
    let [begin, end] = span(moment);
    if (end - begin < SHORTEST) [begin, end] = [Math.max(0, begin - SHORTEST / 2), end + SHORTEST / 2];
    return [begin, Math.min(end, this.card.file.seconds ?? end)];
  }

  /** Loads the file itself, or a rendition of the window in which the moment lies. */
  load(how) {
    this.how = how;
    this.ready = false;
    this.offset = how === "original" ? 0 : this.moment.start;
    const seconds = Math.min(this.about.longest, Math.max(0.1, this.moment.seconds));
    const { file } = this.card;
    const where = how === "original" ? `/media/${file.id}` : address("/rendition", file, this.offset, seconds);
    this.media.src = where;
    this.media.load();
  }

  /** What to do when it cannot be played: a rendition in place of the file, then the reason. */
  async fail() {
    if (!this.card || !this.media.getAttribute("src")) return;
    if (this.how === "original") {
      this.load("rendition");
      return;
    }
    const where = this.media.getAttribute("src");
    await ask(where).catch((error) => this.say(error.message, true));
  }

  /** To the beginning of the moment, once the length is known. */
  jump() {
    this.media.currentTime = Math.max(0, this.begin - this.offset);
    this.ready = true;
    this.media.play().catch(() => this.say("Press space to play."));
    this.follow();
  }

  again() {
    this.media.currentTime = Math.max(0, this.begin - this.offset);
    this.media.play().catch(() => {});
  }

  /** Watches the end of the moment, more often than events come. */
  follow() {
    cancelAnimationFrame(this.frame);
    const look = () => {
      if (!this.card || !this.ready) return;
      const now = this.media.currentTime + this.offset;
      if (this.looping && !this.media.paused && now >= this.end) this.again();
      if (!this.media.paused) this.paint();
      this.frame = requestAnimationFrame(look);
    };
    this.frame = requestAnimationFrame(look);
  }

  toggle() {
    if (!this.card || this.media.hidden) return;
    if (this.media.paused) this.media.play().catch((error) => this.say(`It cannot be played: ${error.message}`, true));
    else this.media.pause();
  }

  loop() {
    this.looping = !this.looping;
    $("loop").setAttribute("aria-pressed", String(this.looping));
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.media.pause();
    this.media.removeAttribute("src");
    this.media.load();
    $("still").removeAttribute("src");
  }

  close() {
    this.opened++;
    this.stop();
    this.card = null;
    $("player").hidden = true;
  }

  list() {
    const single = this.card.moments.length < 2;
    $("moments").hidden = single;
    $("moments").replaceChildren(
      ...this.card.moments.map((moment, number) => {
        const [begin, end] = span(moment);
        const button = make("button", { type: "button", textContent: `${clock(begin)} – ${clock(end)}` });
        if (number === this.number) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => this.chosen(this.card, number));
        return make("li", {}, button);
      }),
    );
  }

  // The waveform.

  async show(turn) {
    const whole = this.card.file.seconds ?? this.end;
    const from = Math.max(0, this.begin - AROUND);
    const seconds = Math.min(Math.min(whole, this.end + AROUND) - from, this.about.longest);
    this.strip = [from, Math.max(0.1, seconds)];
    this.paint();
    if (!this.about.sound) return;
    const found = await outline(address("/api/peaks", this.card.file, from, seconds));
    if (turn === this.opened) {
      this.wave = found;
      this.paint();
    }
  }

  paint() {
    if (!this.card) return;
    const now = this.media.currentTime + this.offset;
    $("play").textContent = this.media.paused ? "Play" : "Pause";
    $("clock").textContent = clock(now);
    if (!this.strip) return;
    const [from, seconds] = this.strip;
    const part = (time) => (time - from) / seconds;
    draw(this.canvas, this.wave, { mark: [part(this.begin), part(this.end)], place: part(now) });
    this.canvas.setAttribute("aria-valuemin", from.toFixed(1));
    this.canvas.setAttribute("aria-valuemax", (from + seconds).toFixed(1));
    this.canvas.setAttribute("aria-valuenow", now.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", clock(now));
  }

  point(event) {
    if (!this.strip) return;
    const box = this.canvas.getBoundingClientRect();
    this.seek(this.strip[0] + ((event.clientX - box.left) / box.width) * this.strip[1]);
  }

  nudge(event) {
    const step = { ArrowLeft: -0.5, ArrowRight: 0.5 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.seek(this.media.currentTime + this.offset + step);
  }

  /** To a second of the file; of a rendition there is no more than the moment. */
  seek(time) {
    if (this.how === "rendition") time = Math.min(Math.max(time, this.offset), this.offset + this.media.duration - 0.05);
    // Whoever points beside the moment wants to hear what is there.
    if (this.looping && (time < this.begin - 0.05 || time > this.end)) this.loop();
    this.media.currentTime = Math.max(0, time - this.offset);
  }
}
