// The page: from what is asked to what is shown.

import { ask, make } from "./ask.js";
import { makeCard } from "./cards.js";
import { Player } from "./player.js";
import { recordSound } from "./record.js";
import { showReports } from "./reports.js";
import { TEXTS, query, read, write } from "./state.js";

const $ = (id) => document.getElementById(id);
const form = $("search");

let state = read(location.search);
let about = null;
let cards = [];
let asked = null; // what the cards shown were asked by
let asking = null;
let compared = ""; // what was compared: heard, seen or both
let at = -1;

const player = new Player(say, (card, number) => play(card, number), heardWords);

function say(text, warn = false) {
  $("status").textContent = text;
  $("status").classList.toggle("warn", warn);
}

// What is asked.

/** Takes a new state: into the address, and as far as it asks something else, to the server. */
function go(change, replace = false) {
  state = { ...state, ...change };
  const where = write(state);
  if (replace) history.replaceState(null, "", where);
  else if (where !== location.pathname + location.search) history.pushState(null, "", where);
  show();
}

addEventListener("popstate", () => {
  state = read(location.search);
  show();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.addEventListener("change", (event) => {
  if (event.target.id !== "file" && event.target.id !== "words") submit();
});

function submit() {
  const filters = {};
  for (const name of TEXTS) {
    const value = form.elements[name].value.trim();
    if (value) filters[name] = value;
  }
  const mode = form.querySelector("[name=mode]:checked");
  go({ q: $("words").value.trim(), mode: mode ? mode.value : "", filters, hit: "" });
  $("words").blur();
}

function fillForm() {
  if (document.activeElement !== $("words") || !asked) $("words").value = state.q;
  for (const name of TEXTS) form.elements[name].value = state.filters[name] || "";
  if (Object.keys(state.filters).length) $("more").open = true;
  for (const radio of form.querySelectorAll("[name=mode]")) radio.checked = radio.value === state.mode;
  $("terms").replaceChildren(
    ...state.terms.map((term) => {
      const remove = make("button", { type: "button", textContent: "✕" });
      remove.setAttribute("aria-label", `No longer by ${term.name}`);
      remove.addEventListener("click", () => go({ terms: state.terms.filter((one) => one !== term), hit: "" }));
      const what = term.key === "entry" ? "like the hit" : "like the file";
      return make("li", {}, make("span", { textContent: `${what} ${term.name}` }), remove);
    }),
  );
}

async function show() {
  if (location.pathname === "/reports") return;
  fillForm();
  document.title = state.q || state.terms.length ? `${state.q || state.terms[0].name}: peav` : "peav: search";
  const wanted = query(state);
  if (wanted !== asked) await search(wanted);
  if (wanted !== query(state)) return; // something else was asked meanwhile
  const [rank, number] = state.hit.split(".").map(Number);
  const card = cards[rank - 1];
  if (!state.hit || !card || !card.moments[number - 1]) {
    if (player.card) player.close();
    mark(-1);
  } else if (player.card !== card || player.number !== number - 1) {
    mark(rank - 1);
    await player.open(card, number - 1);
  }
}

async function search(wanted) {
  if (asking) asking.abort();
  player.close();
  if (!wanted) {
    asked = wanted;
    cards = [];
    $("results").replaceChildren();
    $("help").hidden = false;
    say(greeting());
    return;
  }
  asking = new AbortController();
  const { signal } = asking;
  say(about && about.model === "loading" ? "The model is being loaded…" : "Searching…");
  document.body.setAttribute("aria-busy", "true");
  try {
    const found = await ask(`/api/search?${wanted}&top=40`, { signal });
    asked = wanted;
    cards = found.cards;
    compared = found.mode;
    for (const term of state.terms) if (found.examples[term.value]) term.name = found.examples[term.value];
    $("help").hidden = true;
    $("results").replaceChildren(
      ...cards.map((card, number) => makeCard(card, number + 1, found.by_sum, play, moreLike)),
    );
    say(summary(found), found.fits === false);
  } catch (error) {
    if (error.name === "AbortError") return;
    asked = null;
    cards = [];
    $("results").replaceChildren();
    say(error.message, true);
  } finally {
    if (asking && asking.signal === signal) document.body.removeAttribute("aria-busy");
  }
}

/** What is sought in what is heard, as the server takes it; "" if that is not what was compared. */
function heardWords() {
  return compared === "heard" && state.q.trim() ? new URLSearchParams({ q: state.q }).toString() : "";
}

function summary(found) {
  if (!found.cards.length) return `Nothing found among ${found.searched.toLocaleString("en")} windows.`;
  const what = { heard: "what is heard", seen: "what is seen", both: "sound and pictures" }[found.mode];
  const tail = `${what}, in ${count(found.searched, "window")}`;
  return found.fits === false
    ? `Nothing fits, as far as the model can say. The nearest, compared by ${tail}:`
    : `${count(found.cards.length, "file")}, compared by ${tail}.`;
}

function count(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}

function greeting() {
  if (!about) return "";
  const held = Object.entries(about.counts).map(([kind, count]) => `${count.toLocaleString("en")} ${kind}`);
  return about.files ? `${held.join(", ")} to search in.` : "The index is empty: peav index update makes it.";
}

// From hit to hit.

const hits = () => [...$("results").querySelectorAll(".show")];

function mark(number) {
  at = number;
  hits().forEach((button, row) => button.closest(".card").classList.toggle("open", row === number));
}

function play(card, number) {
  go({ hit: `${cards.indexOf(card) + 1}.${number + 1}` }, Boolean(state.hit));
}

function step(by) {
  if (!cards.length) return;
  const next = Math.min(cards.length - 1, Math.max(0, at + by));
  const button = hits()[next];
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block: "nearest" });
  if (player.card) play(cards[next], 0);
  else mark(next);
}

/** How many cards stand in a row. */
function inRow() {
  const places = hits().map((button) => button.getBoundingClientRect().top);
  return Math.max(1, places.filter((top) => Math.abs(top - places[0]) < 4).length);
}

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("results").addEventListener("focusin", (event) => {
  const row = hits().indexOf(event.target);
  if (row >= 0 && !player.card) mark(row);
});

function moreLike(window, name) {
  go({ q: "", mode: "", terms: [{ key: "entry", value: String(window), name }], hit: "" });
  scrollTo({ top: 0 });
}
$("like").addEventListener("click", () => moreLike(player.moment.window, player.card.file.name));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || location.pathname === "/reports") return;
  const { target, key } = event;
  const typing = target.matches("input, select, textarea") && target.type !== "radio";
  if (key === "Escape") {
    if (typing) target.blur();
    else if (player.card) go({ hit: "" });
    return;
  }
  if (typing) {
    if (target === $("words") && key === "ArrowDown" && cards.length) {
      event.preventDefault();
      target.blur();
      step(at < 0 ? 1 : 0);
    }
    return;
  }
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: at < 0 ? 1 : inRow(), ArrowUp: -inRow() };
  const button = target.matches("button, summary, a, canvas, input");
  if (key === "/") {
    event.preventDefault();
    $("words").focus();
    $("words").select();
  } else if (key in steps && target.type !== "radio") {
    event.preventDefault();
    step(steps[key]);
  } else if (key === "Enter" && !button && at >= 0) play(cards[at], 0);
  else if (key === " " && (!button || target.matches(".show"))) {
    event.preventDefault();
    if (player.card) player.toggle();
    else if (at >= 0) play(cards[at], 0);
  } else if (key === "l") player.loop();
  else if (key === "m" && player.card) moreLike(player.moment.window, player.card.file.name);
});

// By a file, and by the microphone.

async function upload(blob, name) {
  if (about && blob.size > about.upload_bytes) {
    say(`${name} is too large: ${Math.floor(about.upload_bytes / 1e6)} MB at most.`, true);
    return;
  }
  say(`Looking at ${name}…`);
  try {
    const answer = await ask(`/api/upload?name=${encodeURIComponent(name)}`, { method: "POST", body: blob });
    $("words").value = "";
    go({ q: "", mode: "", terms: [{ key: "like", value: answer.like, name: answer.name }], hit: "" });
  } catch (error) {
    say(error.message, true);
  }
}

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) upload(file, file.name);
  $("file").value = "";
});
let inside = 0;
addEventListener("dragenter", () => document.body.classList.toggle("dropping", ++inside > 0));
addEventListener("dragleave", () => document.body.classList.toggle("dropping", --inside > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) upload(file, file.name);
});
recordSound($("record"), say, upload);

// The beginning.

function choices() {
  $("about").textContent = about.name;
  const names = { "": "as it fits", heard: "heard", seen: "seen", both: "both" };
  const kept = ["", ...about.modes];
  for (const mode of kept.length > 2 ? kept : []) {
    const radio = make("input", { type: "radio", name: "mode", value: mode });
    $("modes").append(make("label", {}, radio, make("span", { textContent: names[mode] })));
  }
  for (const [name, values] of [["kind", about.kinds], ["domain", about.domains]]) {
    for (const value of values) form.elements[name].append(make("option", { value, textContent: value }));
    form.elements[name].closest("label").hidden = !values.length;
  }
  $("to-reports").hidden = !about.reports;
}

try {
  about = await ask("/api/index");
  choices();
} catch (error) {
  say(error.message, true);
}
if (location.pathname === "/reports") await showReports(say);
else {
  if (!state.q && !state.terms.length) $("words").focus();
  await show();
}
