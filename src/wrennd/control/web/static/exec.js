// Commands in the chosen sandbox: typed, run by its shell, their output shown as it comes.

import { stream } from "./api.js";
import { byId, make } from "./dom.js";

// Of output that is shown; what was before is dropped.
const MAX_PIECES = 5000;
const history = [];
let at = 0;
let kill = null;
let since = 0;

export function run(box) {
  const input = byId("command");
  const text = input.value.trim();
  if (!text || kill || !box) return;
  history.push(text);
  at = history.length;
  input.value = "";
  const output = byId("output");
  write("prompt", `${text}\n`);
  since = performance.now();
  result("running");
  const command = { cmd: "/bin/sh", args: ["-c", text] };
  kill = stream(box.id, command, {
    output: (kind, data) => write(kind, data),
    exit: (code) => over(`exit code ${code} after ${Math.round(performance.now() - since)} ms`, String(code)),
    failed: (error) => {
      write("stderr", `${error.message}\n`);
      over("it did not run to its end", "failed");
    },
  });
  byId("run").disabled = true;
  byId("stop").disabled = false;
  output.setAttribute("aria-busy", "true");
}

export function stop() {
  kill?.();
}

export function clear() {
  stop();
  byId("output").replaceChildren();
  result("");
}

// By arrow keys, as in a shell.
export function recall(by) {
  at = Math.min(history.length, Math.max(0, at + by));
  byId("command").value = history[at] ?? "";
}

function over(text, code) {
  kill = null;
  byId("run").disabled = false;
  byId("stop").disabled = true;
  byId("output").removeAttribute("aria-busy");
  result(text, code);
}

function result(text, code = "") {
  const element = byId("exec-result");
  element.textContent = text;
  element.dataset.code = code;
}

function write(kind, data) {
  const output = byId("output");
  const isAtEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 4;
  const last = output.lastElementChild;
  if (last?.className === kind && kind !== "prompt" && last.textContent.length < 65536) last.append(data);
  else output.append(make("span", { class: kind }, data));
  while (output.children.length > MAX_PIECES) output.firstElementChild.remove();
  if (isAtEnd) output.scrollTop = output.scrollHeight;
}
