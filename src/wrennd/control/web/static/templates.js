// What sandboxes are made from: base images, and snapshots, which can be deleted.

import { call } from "./api.js";
import { age, byId, bytes, make, say } from "./dom.js";

let whenDeleted = () => {};

export function onDelete(tell) {
  whenDeleted = tell;
}

export async function refresh() {
  const { templates } = await call("GET", "/v1/templates");
  drawChoices(templates);
  drawTable(templates);
}

function drawChoices(templates) {
  const select = byId("template");
  const usable = templates.filter((template) => !template.error).map((template) => template.name);
  // An installation whose first image is still to be built has a base all the same.
  const names = usable.length ? usable : ["base"];
  const before = [...select.options].map((option) => option.value);
  if (names.join("\n") === before.join("\n")) return;
  const wanted = select.value || (names.includes("base") ? "base" : names[0]);
  select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  select.value = names.includes(wanted) ? wanted : names[0];
}

let drawn = "";

function drawTable(templates) {
  const now = JSON.stringify(templates);
  const table = byId("templates");
  if (now !== drawn) table.replaceChildren(...templates.map(row)); // else a button is kept
  drawn = now;
  templates.forEach((template, index) => {
    const created = template.created_at ? age(template.created_at) : "";
    say(table.children[index].children[3], created);
  });
}

function row(template) {
  const remove = make(
    "button",
    {
      type: "button",
      class: "small danger",
      "data-name": template.name,
      "aria-label": `Delete ${template.name}`,
      onclick: () => whenDeleted(template.name),
    },
    "Delete…",
  );
  return make(
    "tr",
    { "data-name": template.name },
    make("td", {}, make("code", {}, template.name)),
    make("td", {}, template.error || template.kind),
    make("td", {}, template.size_bytes ? bytes(template.size_bytes) : ""),
    make("td"),
    make("td", {}, ...(template.kind === "snapshot" ? [remove] : [])),
  );
}
