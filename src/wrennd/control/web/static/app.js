// The page: who is logged in, what the buttons and keys do, and what is looked at again.

import { call, key } from "./api.js";
import { byId, isPassing } from "./dom.js";
import * as exec from "./exec.js";
import { operation } from "./operations.js";
import * as sandboxes from "./sandboxes.js";
import * as templates from "./templates.js";

const LOOK_MS = 1500;
const LOOK_QUICKLY_MS = 400;
const TEMPLATES_EVERY = 5;
let timer = null;
let looks = 0;

// Logging in and out

async function logIn(value) {
  key.set(value);
  try {
    await Promise.all([sandboxes.refresh(), templates.refresh()]);
  } catch (error) {
    key.clear();
    byId("login-failure").textContent = error.message;
    show(false);
    return;
  }
  byId("login-failure").textContent = "";
  byId("key").value = "";
  show(true);
  sayHost();
  look();
}

function logOut() {
  clearTimeout(timer);
  key.clear();
  exec.clear();
  sandboxes.clear();
  show(false);
  byId("key").focus();
}

function show(isIn) {
  byId("login").hidden = isIn;
  for (const id of ["app", "logout", "keys"]) byId(id).hidden = !isIn;
  if (!isIn) byId("host").textContent = "";
}

async function sayHost() {
  try {
    const { hosts } = await call("GET", "/v1/hosts");
    const [host] = hosts;
    byId("host").textContent = host ? [host.version, host.vmm, ...tier(host)].join(" · ") : "";
  } catch {
    byId("host").textContent = ""; // only keys of the project that administers may see hosts
  }
}

// Most VMMs' names say it.
const tier = (host) => (host.vmm.includes(host.tier) ? [] : [host.tier]);

// Looking again

async function look() {
  clearTimeout(timer);
  try {
    await sandboxes.refresh();
    if (looks++ % TEMPLATES_EVERY === 0) await templates.refresh();
    linked("");
  } catch (error) {
    if (error.status === 401) {
      logOut();
      byId("login-failure").textContent = error.message;
      return;
    }
    linked(error.message);
  }
  const isBusy = isPassing(sandboxes.chosen()?.state);
  timer = setTimeout(look, isBusy ? LOOK_QUICKLY_MS : LOOK_MS);
}

function linked(problem) {
  byId("link").textContent = problem;
  byId("link").classList.toggle("lost", Boolean(problem));
}

// Operations

// Of an operation whose answer came before its end, or without its phases.
async function finished(sandboxId, name, answer) {
  if (answer?.timings?.phases?.length) return answer.timings;
  await sandboxes.settled(sandboxId);
  try {
    const { operations } = await call("GET", `/v1/sandboxes/${sandboxId}/timings`);
    return operations.find((found) => found.operation === name);
  } catch {
    return null; // no phases are better than a failure that was none
  }
}

async function act(name, sandboxId, run) {
  const done = operation(name, sandboxId, run);
  look();
  const result = await done;
  await look();
  return result;
}

async function create(event) {
  event.preventDefault();
  const form = new FormData(byId("create"));
  const body = { template: form.get("template") };
  if (form.get("vcpus")) body.vcpus = Number(form.get("vcpus"));
  if (form.get("memory")) body.memory_mib = Number(form.get("memory"));
  const made = await act("create", "", async () => {
    const box = await call("POST", "/v1/sandboxes", { body });
    look().then(() => sandboxes.choose(box.id));
    const timings = await finished(box.id, "create", box);
    const now = await sandboxes.get(box.id);
    if (now.state !== "running") throw new Error(now.error || `It is ${now.state}`);
    return { timings, sandboxId: box.id };
  });
  if (made?.sandboxId) sandboxes.choose(made.sandboxId);
}

function move(name, wanted) {
  const box = sandboxes.chosen();
  if (!box) return;
  act(name, box.id, async () => {
    const answer = await call("POST", `/v1/sandboxes/${box.id}/${name}`, { body: {} });
    const timings = await finished(box.id, name, answer);
    const now = await sandboxes.get(box.id);
    if (now.state !== wanted) throw new Error(now.error || `It is ${now.state}`);
    return { timings };
  });
}

async function destroy() {
  const box = sandboxes.chosen();
  if (!box) return;
  const text = "Its memory, its disk and all that was done in it are lost.";
  if (!(await confirmed(`Destroy ${box.id}?`, text, "Destroy"))) return;
  act("destroy", box.id, async () => {
    await call("DELETE", `/v1/sandboxes/${box.id}`);
    return { timings: await finished(box.id, "destroy", null) };
  });
}

async function snapshot() {
  const box = sandboxes.chosen();
  if (!box || byId("snapshot").disabled) return;
  const dialog = byId("snapshot-dialog");
  byId("snapshot-form").reset();
  if ((await asked(dialog)) !== "create") return;
  const name = byId("snapshot-name").value;
  const query = byId("snapshot-overwrite").checked ? { overwrite: "true" } : {};
  const body = { sandbox_id: box.id, name, pause: byId("snapshot-pause").checked };
  await act("snapshot", name, async () => {
    const answer = await call("POST", "/v1/snapshots", { query, body });
    return { timings: await finished(box.id, "snapshot", answer) };
  });
  templates.refresh();
}

async function deleteTemplate(name) {
  const text = "Sandboxes that were made of it go on.";
  if (!(await confirmed(`Delete ${name}?`, text, "Delete"))) return;
  await act("delete snapshot", name, async () => {
    await call("DELETE", `/v1/snapshots/${encodeURIComponent(name)}`);
    return {};
  });
  templates.refresh();
}

// Questions

function asked(dialog) {
  dialog.returnValue = ""; // what Escape leaves
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

async function confirmed(title, text, word) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = word;
  return (await asked(byId("confirm-dialog"))) === "yes";
}

// Keys: letters mean something only where no text is typed.

const LETTERS = {
  n: () => byId("template").focus(),
  "/": () => byId("command").focus(),
  p: () => byId("pause").click(),
  r: () => byId("resume").click(),
  s: () => byId("snapshot").click(),
  d: () => byId("destroy").click(),
  ArrowDown: () => sandboxes.step(1),
  ArrowUp: () => sandboxes.step(-1),
};

// What a closed dialog held keeps the focus until the next frame: nobody types there.
const TYPING = "input, select, dialog, pre";
const isTypedInto = (element) => element.closest(TYPING) && !element.closest("dialog:not([open])");

function pressed(event) {
  const isTyping = isTypedInto(event.target);
  const isOurs = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (isTyping || !isOurs || byId("app").hidden || !(event.key in LETTERS)) return;
  event.preventDefault();
  LETTERS[event.key]();
}

function pressedInCommand(event) {
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
  event.preventDefault();
  exec.recall(event.key === "ArrowUp" ? -1 : 1);
}

for (const button of document.querySelectorAll("button.cancel")) {
  button.addEventListener("click", () => button.closest("dialog").close(""));
}
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(byId("key").value.trim());
});
byId("logout").addEventListener("click", logOut);
byId("create").addEventListener("submit", create);
byId("pause").addEventListener("click", () => move("pause", "paused"));
byId("resume").addEventListener("click", () => move("resume", "running"));
byId("destroy").addEventListener("click", destroy);
byId("snapshot").addEventListener("click", snapshot);
byId("exec").addEventListener("submit", (event) => {
  event.preventDefault();
  exec.run(sandboxes.chosen());
});
byId("stop").addEventListener("click", exec.stop);
byId("command").addEventListener("keydown", pressedInCommand);
document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && key.get()) look();
});
sandboxes.onChosen(exec.clear);
templates.onDelete(deleteTemplate);

if (key.get()) logIn(key.get());
else {
  show(false);
  byId("key").focus();
}
