// Asks the server, or, in a copy that was exported, what stands in the file.
import { filtered } from "./filter.js";

let offline = null;

/** Whether this page is a copy, with nobody to ask. */
export function isCopy() {
  return document.getElementById("copy") !== null;
}

/** What `/api/VIEW` answers; an error carries the server's words. */
export async function ask(view, parameters = {}) {
  if (isCopy()) return askCopy(view, parameters);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") query.append(name, each);
    }
  }
  const response = await fetch(`api/${view}?${query}`);
  const value = await response.json();
  if (!response.ok) throw new Error(value.detail ?? `status ${response.status}`);
  return value;
}

/** The whole text of a part of a trajectory. */
export async function wholeText(run, row, part) {
  if (isCopy()) throw new Error("The copy holds what is shown here and no more.");
  const response = await fetch(`api/text?${new URLSearchParams({ run, row, part })}`);
  if (!response.ok) throw new Error((await response.json()).detail);
  return response.text();
}

export async function keepNote(run, tags, note) {
  const response = await fetch("api/note", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ run, tags, note }),
  });
  const value = await response.json();
  if (!response.ok) throw new Error(value.detail);
  return value;
}

async function askCopy(view, parameters) {
  offline ??= JSON.parse(document.getElementById("copy").textContent);
  const run = parameters.run ?? "";
  if (view === "list") return filtered(await unpacked(`rows|${run}`), parameters);
  const key = [view, run, parameters.row ?? parameters.task ?? parameters.other ?? ""].join("|");
  return unpacked(key);
}

async function unpacked(key) {
  const packed = offline[key];
  if (packed === undefined) throw new Error("This is not in the copy; the run itself has it.");
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
