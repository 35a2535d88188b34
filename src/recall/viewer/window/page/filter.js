// The filter of trajectories for a copy that has no server; with one, the index answers.

const SPANS = ["step", "reward", "advantage", "depth", "turns", "calls", "failed", "tokens", "sampled", "logprob",
  "duration"];

function within(value, text) {
  const [low, high] = text.includes("..") ? text.split("..") : [text, text];
  if (value === null || value === undefined) return false;
  return (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
}

function listed(value) {
  return value === undefined || value === "" ? [] : Array.isArray(value) ? value : [value];
}

function matches(row, wanted) {
  if (SPANS.some((name) => wanted[name] && !within(row[name], wanted[name]))) return false;
  for (const text of listed(wanted.part)) {
    const [name, span] = text.split("=");
    if (!within(row.parts[name], span ?? "")) return false;
  }
  for (const name of ["correct", "fault"]) {
    if (wanted[name] !== undefined && wanted[name] !== "" && String(row[name]) !== String(wanted[name])) return false;
  }
  for (const name of ["split", "task"]) if (wanted[name] && row[name] !== wanted[name]) return false;
  for (const name of ["kind", "stop"]) {
    if (listed(wanted[name]).length && !listed(wanted[name]).includes(row[name])) return false;
  }
  if (listed(wanted.tool).some((tool) => !row.tools.includes(tool))) return false;
  if (listed(wanted.status).length && !listed(wanted.status).some((one) => row.statuses.includes(one))) return false;
  const said = row.words.toLowerCase();
  return String(wanted.text ?? "").toLowerCase().split(/\s+/).every((word) => said.includes(word.replaceAll('"', "")));
}

function tally(rows, name) {
  const counts = {};
  for (const row of rows) for (const value of [row[name]].flat()) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

/** What the server's `list` answers, from rows that are all here. */
export function filtered(rows, wanted) {
  const found = rows.filter((row) => matches(row, wanted));
  const sort = String(wanted.sort ?? "");
  if (sort) {
    const name = sort.replace("-", "");
    const key = (row) => (name.startsWith("part:") ? row.parts[name.slice(5)] : row[name]);
    const sign = sort.startsWith("-") ? -1 : 1;
    found.sort((a, b) => sign * ((key(a) ?? Infinity * sign) - (key(b) ?? Infinity * sign)));
  }
  const start = Number(wanted.start ?? 0);
  const facets = { tool: tally(found, "tools"), status: tally(found, "statuses") };
  for (const name of ["split", "kind", "stop", "correct"]) facets[name] = tally(found, name);
  return { total: found.length, of: rows.length, start, rows: found.slice(start, start + Number(wanted.limit ?? 50)),
    facets, cut: false, indexing: null };
}
