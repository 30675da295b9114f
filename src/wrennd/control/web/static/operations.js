// The list of what was done here: each with its result and its phases as a bar.

import { byId, make, ms, short } from "./dom.js";

const KEPT = 30;
const TONES = 8;

// Runs `act`, which resolves to {timings, sandboxId}, either of them optional, and shows how it went.
// Resolves to what `act` did, or to null when it failed.
export async function operation(name, sandboxId, act) {
  const entry = new Entry(name, sandboxId);
  try {
    const done = await act();
    entry.done(done?.timings, done?.sandboxId);
    return done ?? {};
  } catch (error) {
    entry.failed(error);
    return null;
  }
}

class Entry {
  constructor(name, sandboxId) {
    this.began = performance.now();
    this.name = name;
    this.about = make("code");
    this.chip = make("span", { class: "chip passing" }, "running");
    this.time = make("span", { class: "time" });
    const line = make("div", { class: "operation" }, make("strong", {}, name), this.about, this.chip, this.time);
    this.element = make("li", { "data-operation": name, "data-result": "running" }, line);
    this.of(sandboxId);
    this.tick = setInterval(() => this.show(performance.now() - this.began), 100);
    const list = byId("operations");
    list.prepend(this.element);
    while (list.children.length > KEPT) list.lastElementChild.remove();
    byId("operations-empty").hidden = true;
  }

  of(sandboxId) {
    if (!sandboxId) return;
    this.about.textContent = sandboxId.length === 20 ? short(sandboxId) : sandboxId;
  }

  show(total) {
    this.time.textContent = ms(total);
  }

  end(result, className, total) {
    clearInterval(this.tick);
    this.chip.textContent = result;
    this.chip.className = `chip ${className}`;
    this.element.dataset.result = className;
    this.show(total);
  }

  done(timings, sandboxId) {
    this.of(sandboxId);
    const took = performance.now() - this.began;
    const phases = (timings?.phases ?? []).filter((phase) => phase.ms > 0);
    this.end("done", "done", timings?.total_ms || took);
    if (phases.length) this.element.append(bar(this.name, phases), legend(phases));
  }

  failed(error) {
    this.end("failed", "failed", performance.now() - this.began);
    const told = make("p", { class: "failure", role: "alert" }, error.message);
    this.element.append(told);
    if (error.hint) this.element.append(make("p", { class: "hint" }, error.hint));
  }
}

function bar(name, phases) {
  const told = phases.map((phase) => `${phase.name} ${ms(phase.ms)}`).join(", ");
  const made = make("div", { class: "phases", role: "img", "aria-label": `Phases of ${name}: ${told}` });
  phases.forEach((phase, index) => {
    const piece = make("span", { class: tone(index), title: `${phase.name}: ${ms(phase.ms)}` });
    piece.style.flex = `${phase.ms} 1 0`;
    made.append(piece);
  });
  return made;
}

function legend(phases) {
  return make(
    "ul",
    { class: "legend" },
    ...phases.map((phase, index) => make("li", { class: tone(index) }, `${phase.name} ${ms(phase.ms)}`)),
  );
}

const tone = (index) => `tone-${index % TONES}`;
