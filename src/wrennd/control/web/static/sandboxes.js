// The sandboxes: what the server has, which one is chosen, and how both are drawn.

import { call } from "./api.js";
import { age, byId, bytes, chip, isPassing, make, say, since } from "./dom.js";

const rows = new Map();
let known = [];
let chosenId = "";
let whenChosen = () => {};

export const chosen = () => known.find((box) => box.id === chosenId) ?? null;

export function onChosen(tell) {
  whenChosen = tell;
}

export async function refresh() {
  const found = [];
  let cursor = "";
  do {
    const query = cursor ? { cursor } : {};
    const page = await call("GET", "/v1/sandboxes", { query });
    found.push(...page.sandboxes);
    cursor = page.next_cursor;
  } while (cursor);
  known = found;
  draw();
}

export async function get(sandboxId) {
  return call("GET", `/v1/sandboxes/${sandboxId}`);
}

// Waits until nothing is being done to it; resolves to it, or to null when it is gone.
export async function settled(sandboxId) {
  for (;;) {
    let box;
    try {
      box = await get(sandboxId);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
    if (!isPassing(box.state)) return box;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

export function choose(sandboxId) {
  chosenId = sandboxId;
  draw();
  whenChosen(chosen());
}

// The one above or below the chosen one, which also gets the focus.
export function step(by) {
  if (!known.length) return;
  const at = known.findIndex((box) => box.id === chosenId);
  const to = known[at < 0 ? 0 : Math.min(known.length - 1, Math.max(0, at + by))];
  choose(to.id);
  rows.get(to.id).button.focus();
}

export function clear() {
  known = [];
  chosenId = "";
  draw();
}

function draw() {
  const list = byId("boxes");
  const ids = new Set(known.map((box) => box.id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.element.remove();
    rows.delete(id);
  }
  known.forEach((box, index) => {
    const row = rows.get(box.id) ?? newRow(box.id);
    if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    say(row.about, `${box.template} · ${box.memory_mib} MiB · ${since(box.created_at)}`);
    chip(row.chip, box.state);
    row.button.setAttribute("aria-current", String(box.id === chosenId));
  });
  say(byId("boxes-count"), known.length ? String(known.length) : "");
  byId("boxes-empty").hidden = known.length > 0;
  drawChosen();
}

function newRow(id) {
  const about = make("span", { class: "about" });
  const state = make("span", { class: "chip" });
  const button = make(
    "button",
    { type: "button", class: "box", "data-id": id, onclick: () => choose(id) },
    make("code", {}, id),
    state,
    about,
  );
  const row = { element: make("li", {}, button), button, about, chip: state };
  rows.set(id, row);
  return row;
}

function drawChosen() {
  const box = chosen();
  byId("detail").hidden = !box;
  byId("none").hidden = Boolean(box);
  if (!box) return;
  say(byId("detail-id"), box.id);
  chip(byId("detail-state"), box.state);
  say(byId("detail-error"), box.error ?? "");
  const passing = isPassing(box.state);
  byId("pause").disabled = box.state !== "running";
  byId("resume").disabled = box.state !== "paused";
  byId("snapshot").disabled = passing || !["running", "paused"].includes(box.state);
  byId("destroy").disabled = box.state === "destroying";
  drawFacts(box);
}

function drawFacts(box) {
  const facts = {
    Template: box.template,
    Isolation: box.tier,
    vCPUs: box.vcpus,
    Memory: `${box.memory_mib} MiB`,
    Disk: box.disk_bytes ? bytes(box.disk_bytes) : "",
    Address: box.address,
    Snapshots: box.generation || "",
    Created: age(box.created_at),
    Expires: box.expires_at ? new Date(box.expires_at).toLocaleString() : "never",
  };
  const shown = Object.entries(facts).filter(([, value]) => value !== "" && value !== undefined);
  const list = byId("facts");
  if (list.children.length !== shown.length) {
    list.replaceChildren(...shown.map(() => make("div", {}, make("dt"), make("dd"))));
  }
  shown.forEach(([name, value], index) => {
    const [term, description] = list.children[index].children;
    say(term, name);
    say(description, String(value));
  });
}
