// Asking the server, and the words for times and numbers.

/** Asks the server; throws an Error with what it says went wrong. */
export async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is peav serve still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `The server says ${answer.status}.`);
  return body;
}

/** An element with properties and children; texts are texts, never HTML. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** 75.25 -> "1:15.2". */
export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Where a moment begins and ends: what the frames say, or else its window. */
export function span(moment) {
  return moment.begin === null || moment.end === null
    ? [moment.start, moment.start + moment.seconds]
    : [moment.begin, moment.end];
}

/** The address of what the server makes of a span of a file. */
export function address(what, file, start, seconds) {
  return `${what}/${file.id}?start=${start.toFixed(2)}&seconds=${seconds.toFixed(2)}`;
}
