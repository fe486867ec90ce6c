
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const page = byId("test").dataset.page;
  const pairs = [...document.querySelectorAll(".pair")];
  const buttons = [...document.querySelectorAll("[data-choice]")];
  const choices = buttons.map((button) => button.dataset.choice);
  const store = `peav-ab-${page}`;

  let answers = pairs.map(() => null);
  let place = 0;
  let kept = true;

  function load() {
    try {
      const held = JSON.parse(localStorage.getItem(store) ?? "null");
      if (held === null) return;
      const sound = Array.isArray(held.answers) && held.answers.length === pairs.length;
      if (!sound || !held.answers.every((one) => one === null || choices.includes(one))) return;
      answers = held.answers;
      byId("rater").value = String(held.rater ?? "");
      const open = answers.indexOf(null);
      place = open < 0 ? 0 : open;
    } catch {
      kept = false;
    }
  }

  function keep() {
    try {
      localStorage.setItem(store, JSON.stringify({ answers, rater: byId("rater").value }));
    } catch {
      kept = false;
    }
  }

  function show() {
    pairs.forEach((pair, number) => {
      pair.hidden = number !== place;
    });
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.choice === answers[place])));
    const done = answers.filter((one) => one !== null).length;
    byId("place").textContent = `Clip ${place + 1} of ${pairs.length}, ${done} answered`;
    byId("progress").max = pairs.length;
    byId("progress").value = done;
    byId("back").disabled = place === 0;
    byId("next").disabled = place === pairs.length - 1;
    const left = pairs.length - done;
    byId("left").textContent = left
      ? `${left} of ${pairs.length} clips are not answered yet. The file counts once all are.`
      : "All clips are answered. Save the answers, and send the file to whoever asked you.";
    byId("save").classList.toggle("done", left === 0);
    byId("kept").textContent = kept
      ? "Your answers stay in this browser: the page may be closed, and goes on where it was."
      : "This browser keeps nothing for this page: save before you close or reload it.";
    byId("kept").classList.toggle("warning", !kept);
  }

  function go(to) {
    document.querySelectorAll("audio").forEach((sound) => sound.pause());
    place = Math.min(Math.max(to, 0), pairs.length - 1);
    show();
  }

  function choose(choice) {
    const complete = !answers.includes(null);
    answers[place] = choice;
    keep();
    const later = answers.indexOf(null, place + 1);
    const open = later >= 0 ? later : answers.indexOf(null);
    if (open >= 0) go(open);
    else if (complete) go(place + 1);
    else {
      show();
      byId("write").focus();
    }
  }

  function write() {
    const rater = byId("rater").value.trim();
    const held = { peav: "answers of a blind test", version: 1, page, rater, saved: new Date().toISOString(), answers };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(held, null, 1)}\n`], { type: "application/json" }));
    const name = rater.replace(/[^\p{L}\p{N}-]+/gu, "-").replace(/^-+|-+$/g, "");
    link.download = `answers${name ? `-${name}` : ""}-${page.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  function anew() {
    if (!confirm("Forget all answers of this page?")) return;
    answers = pairs.map(() => null);
    byId("rater").value = "";
    keep();
    go(0);
  }

  function play() {
    const sound = pairs[place].querySelector("audio");
    if (sound) sound.paused ? sound.play() : sound.pause();
  }

  buttons.forEach((button) => button.addEventListener("click", () => choose(button.dataset.choice)));
  byId("back").addEventListener("click", () => go(place - 1));
  byId("next").addEventListener("click", () => go(place + 1));
  byId("write").addEventListener("click", write);
  byId("anew").addEventListener("click", anew);
  byId("rater").addEventListener("input", keep);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const on = event.target.tagName;
    if (on === "INPUT") return;
    const digit = ["1", "2", "3"].indexOf(event.key);
    if (digit >= 0) choose(choices[digit]);
    else if (on !== "AUDIO" && event.key === "ArrowLeft") go(place - 1);
    else if (on !== "AUDIO" && event.key === "ArrowRight") go(place + 1);
    else if (event.key === " " && on !== "AUDIO" && on !== "BUTTON") play();
    else return;
    event.preventDefault();
  });

  load();
  show();
})();
