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
  if (view === "group") return { rows: await members(run, await unpacked(`trajectory|${run}|${parameters.row}`)) };
  if (view === "task") return { task: parameters.task, times: await played(run, parameters.task) };
  const key = [view, run, parameters.row ?? parameters.task ?? parameters.other ?? ""].join("|");
  return unpacked(key);
}

/** The trajectories of the group of `told`, as far as the copy has them. */
async function members(run, told) {
  const keys = told.group_rows.map((row) => `trajectory|${run}|${row.row}`).filter((key) => key in offline);
  return Promise.all(keys.map(unpacked));
}

/** The times that a task was played, with the first two trajectories of each. */
async function played(run, task) {
  const times = new Map();
  for (const row of await unpacked(`rows|${run}`)) {
    if (row.task !== task) continue;
    const key = `${row.step} ${row.split} ${row.group}`;
    times.set(key, [...(times.get(key) ?? []), row]);
  }
  return Promise.all([...times.values()].map(async (rows) => ({ step: rows[0].step, split: rows[0].split,
    count: rows.length, right: rows.filter((row) => row.correct).length,
    mean: rows.reduce((sum, row) => sum + row.reward, 0) / rows.length,
    rows: await Promise.all(rows.slice(0, 2).map((row) => unpacked(`trajectory|${run}|${row.row}`))) })));
}

async function unpacked(key) {
  const packed = offline[key];
  if (packed === undefined) throw new Error("This is not in the copy; the run itself has it.");
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
