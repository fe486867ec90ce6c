// What is asked, as the address of the page says it, so that it can be kept, sent and gone back to.

const TEXTS = ["not", "kind", "domain", "name", "transcript", "folder", "min_seconds", "max_seconds", "after", "before"];

/** Reads an address. `hit` is "rank.moment" of what plays. */
export function read(search) {
  const given = new URLSearchParams(search);
  const terms = [];
  for (const [key, value] of given) {
    if (key === "entry" || key === "like") terms.push({ key, value, name: given.get(`${key}_${value}`) || value.slice(0, 8) });
  }
  const filters = {};
  for (const name of TEXTS) if (given.get(name)) filters[name] = given.get(name);
  return { q: given.get("q") || "", mode: given.get("mode") || "", terms, filters, hit: given.get("hit") || "" };
}

/** Writes an address. */
export function write(state) {
  const given = new URLSearchParams();
  if (state.q) given.set("q", state.q);
  if (state.mode) given.set("mode", state.mode);
  for (const { key, value, name } of state.terms) {
    given.append(key, value);
    given.set(`${key}_${value}`, name);
  }
  for (const [name, value] of Object.entries(state.filters)) given.set(name, value);
  if (state.hit) given.set("hit", state.hit);
  const text = given.toString();
  return text ? `/?${text}` : "/";
}

/** What the server is asked; "" if nothing is. */
export function query(state) {
  if (!state.q.trim() && !state.terms.length) return "";
  const given = new URLSearchParams();
  if (state.q.trim()) given.set("q", state.q);
  if (state.mode) given.set("mode", state.mode);
  for (const { key, value } of state.terms) given.append(key, value);
  for (const [name, value] of Object.entries(state.filters)) given.set(name, value);
  return given.toString();
}

export { TEXTS };
