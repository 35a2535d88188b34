// One run: its curves, its settings, its notes.
import { ask, isCopy, keepNote } from "./api.js";
import { chart, smoothing } from "./charts.js";
import { append, button, h, link } from "./dom.js";
import { count, number, percent } from "./format.js";

const SECTIONS = [["Success", /^(success|val)\//], ["Reward", /^(reward|groups)\//], ["Policy", /^policy\//],
  ["Rollout", /^rollout\//], ["Curriculum and tasks", /^(curriculum|tasks)\//], ["Time and memory", /^(time|memory)\//]];

let weight = 0;

export async function runView({ run }) {
  const facts = h("div");
  const curves = h("div");
  const settings = h("details", { class: "block" });
  const refresh = async () => {
    const [about, metrics] = await Promise.all([ask("run", { run }), ask("metrics", { run })]);
    facts.replaceChildren(header(about));
    curves.replaceChildren(...sections(metrics));
    if (!settings.childElementCount) {
      append(settings, [h("summary", {}, "Settings"), h("pre", {}, about.config_text || "config.toml is missing.")]);
    }
  };
  await refresh();
  const control = smoothing(weight, (chosen) => { weight = chosen; refresh(); });
  return { title: run, live: true, refresh, node: h("div", {}, facts, h("div", { class: "tools" }, control), curves,
    settings) };
}

function header(about) {
  const told = [about.model, about.algorithm, about.seed === null || about.seed === undefined ? null
    : `seed ${about.seed}`, about.minutes === null ? null : `${number(about.minutes, 1)} minutes`,
  count(about.trajectories, "trajectory").replace("trajectorys", "trajectories"),
  about.checkpoints.length ? count(about.checkpoints.length, "checkpoint") : null];
  const step = about.step === null ? "no step yet" : `step ${about.step}${about.of ? ` of ${about.of}` : ""}`;
  return h("div", {}, h("h1", {}, about.name), h("p", { class: "lead" }, [step, ...told].filter(Boolean).join(" · ")),
    h("dl", { class: "facts" }, Object.entries(about.last).map(([name, value]) => h("div", {}, h("dt", {}, name),
      h("dd", {}, name.startsWith("success") ? percent(value) : number(value))))),
    about.notes.length ? h("div", { class: "notes", role: "note" }, about.notes.map((note) => h("p", {}, note))) : null,
    notes(about));
}

function notes(about) {
  if (isCopy()) {
    return about.tags.length || about.note
      ? h("p", { class: "soft" }, about.tags.map((tag) => h("span", { class: "chip" }, tag)), about.note) : null;
  }
  const tags = h("input", { value: about.tags.join(", "), "aria-label": "Tags, with commas between", placeholder: "tags" });
  const note = h("input", { value: about.note, "aria-label": "Note", placeholder: "note", class: "wide" });
  const said = h("span", { role: "status", class: "soft" });
  const keep = async () => {
    try {
      await keepNote(about.name, tags.value.split(","), note.value);
      said.textContent = "kept";
    } catch (error) {
      said.textContent = error.message;
    }
  };
  return h("form", { class: "tools annotate", onsubmit: (event) => { event.preventDefault(); keep(); } }, tags, note,
    button("Keep", keep), said);
}

function sections(metrics) {
  const names = Object.keys(metrics.columns);
  if (!names.length) return [h("p", { class: "empty" }, "No step has ended yet. The curves come with the first one.")];
  const left = new Set(names);
  const made = [];
  for (const [title, pattern] of [...SECTIONS, ["Other", /./]]) {
    const mine = names.filter((name) => left.has(name) && pattern.test(name));
    mine.forEach((name) => left.delete(name));
    if (!mine.length) continue;
    made.push(h("section", {}, h("h2", {}, title), h("div", { class: "charts" }, families(mine).map(([family, members]) =>
      chart(family, metrics.steps, members.map(([name, column]) => ({ name, values: metrics.columns[column] })),
        { smoothing: weight })))));
  }
  return made;
}

/** Metrics that belong into one chart: those by kind, and validations by split and mode. */
export function families(names) {
  const found = new Map();
  for (const name of names) {
    const parts = name.split("/");
    const several = parts.length >= 3;
    const family = several ? parts.slice(0, -1).join("/") : name;
    if (!found.has(family)) found.set(family, []);
    found.get(family).push([several ? parts.at(-1) : name, name]);
  }
  const numeric = new Intl.Collator("en", { numeric: true }).compare;
  for (const members of found.values()) members.sort((a, b) => numeric(a[0], b[0]));
  return [...found];
}
