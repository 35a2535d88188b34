// Up to eight runs side by side: curves, seeds folded into bands, differences of settings.
import { ask } from "./api.js";
import { chart, smoothing } from "./charts.js";
import { address, append, button, h, link } from "./dom.js";

const MOST = 8;
const SEEDS = new Set(["seed"]);
let weight = 0;

export async function compareView({ runs, fold, metric }) {
  const names = [runs ?? []].flat().slice(0, MOST);
  if (names.length < 2) throw new Error("Choose two to eight runs on the page of all runs.");
  const told = await Promise.all(names.map(async (run) => ({ run, about: await ask("run", { run }),
    metrics: await ask("metrics", { run }) })));
  const differing = differences(told);
  const folded = fold === "1";
  const groups = folded ? bySettings(told, differing) : told.map((one) => ({ name: one.run, runs: [one] }));
  const all = [...new Set(told.flatMap((one) => Object.keys(one.metrics.columns)))];
  const wanted = metric ?? "";
  const curves = h("div");
  const draw = () => curves.replaceChildren(...families(all.filter((name) => name.includes(wanted))).map(([title, members]) =>
    h("section", {}, h("h2", {}, title), h("div", { class: "charts" }, members.map((name) => drawn(name, groups))))));
  draw();
  const search = h("input", { type: "search", value: wanted, placeholder: "metric, such as val/ or entropy", "aria-label":
    "Metrics", onchange: (event) => { location.hash = address("compare", { runs: names, fold, metric: event.target.value }); } });
  const control = smoothing(weight, (chosen) => { weight = chosen; draw(); });
  const node = h("div", {}, h("h1", {}, "Compare"), h("ul", { class: "legend wide" }, groups.map((group, place) =>
    h("li", {}, h("i", { class: `key c${place}` }), group.runs.length > 1 ? `${group.name}: ${group.runs.length} seeds`
      : link("run", { run: group.runs[0].run }, group.name)))), h("div", { class: "tools" }, search, control,
    h("label", {}, h("input", { type: "checkbox", checked: folded, onchange: (event) => {
      location.hash = address("compare", { runs: names, fold: event.target.checked ? "1" : "", metric });
    } }), " Fold seeds into bands"), names.length === 2 ? link("pair", { run: names[0], other: names[1] },
      "The same tasks, one by one", { class: "action" }) : null), settings(told, differing), curves);
  return { title: "Compare", node };
}

/** The settings that are not the same in all runs. */
function differences(told) {
  const names = [...new Set(told.flatMap((one) => Object.keys(one.about.config)))];
  return names.filter((name) => new Set(told.map((one) => JSON.stringify(one.about.config[name]))).size > 1);
}

/** Runs whose settings differ in nothing but the seed, together. */
function bySettings(told, differing) {
  const found = new Map();
  for (const one of told) {
    const key = JSON.stringify(differing.filter((name) => !SEEDS.has(name)).map((name) => one.about.config[name]));
    if (!found.has(key)) found.set(key, { name: one.run, runs: [] });
    found.get(key).runs.push(one);
  }
  return [...found.values()];
}

function settings(told, differing) {
  const rows = differing.map((name) => h("tr", {}, h("th", { scope: "row" }, name), told.map((one) => h("td", {},
    JSON.stringify(one.about.config[name]) ?? "–"))));
  return h("details", { class: "block", open: true }, h("summary", {}, differing.length
    ? `${differing.length} settings differ` : "The settings are the same"), differing.length ? h("div", { class: "scroll" },
    h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "setting"), told.map((one) => h("th",
      { scope: "col" }, one.run)))), h("tbody", {}, rows))) : null);
}

/** Metrics by what stands before their last part; validations by split. */
function families(names) {
  const found = new Map();
  for (const name of names) {
    const title = name.split("/").slice(0, name.startsWith("val/") ? 2 : 1).join("/");
    found.set(title, [...(found.get(title) ?? []), name]);
  }
  return [...found];
}

function drawn(name, groups) {
  const steps = [...new Set(groups.flatMap((group) => group.runs.flatMap((one) => one.metrics.steps)))].sort((a, b) =>
    a - b);
  const curves = groups.map((group, place) => {
    const values = group.runs.map((one) => {
      const column = one.metrics.columns[name] ?? [];
      const at = new Map(one.metrics.steps.map((step, index) => [step, column[index] ?? null]));
      return steps.map((step) => at.get(step) ?? null);
    });
    return { name: group.name, colour: place, ...band(values) };
  }).filter((curve) => curve.values.some((value) => value !== null));
  return chart(name, steps, curves, { smoothing: weight, legend: true });
}

/** The median of several runs at each step, and the least and the most where there are several. */
export function band(values) {
  if (values.length === 1) return { values: values[0] };
  const at = values[0].map((_, index) => values.map((run) => run[index]).filter((value) => value !== null)
    .sort((a, b) => a - b));
  const middle = (sorted) => (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
  return { values: at.map((sorted) => (sorted.length ? middle(sorted) : null)), low: at.map((sorted) => sorted[0] ?? null),
    high: at.map((sorted) => sorted.at(-1) ?? null) };
}
