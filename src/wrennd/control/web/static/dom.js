// Small things about elements, and numbers as people read them.

export const byId = (id) => document.getElementById(id);

// An element with attributes, or properties where the name has none, and children.
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Writing the same text again would take a reader's selection away.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const PASSING = ["starting", "pausing", "snapshotting", "resuming", "destroying"];

export const isPassing = (state) => PASSING.includes(state);

export function chip(element, state) {
  say(element, state);
  element.className = `chip ${isPassing(state) ? "passing" : state}`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function ms(value) {
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} ms`;
}

export function since(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const age = (time) => `${since(time)} ago`;

export const short = (sandboxId) => sandboxId.slice(0, 8);
