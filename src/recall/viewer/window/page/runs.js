// All runs, evaluations and sets of the directory.
import { ask, isCopy } from "./api.js";
import { lastOf, spark } from "./charts.js";
import { address, button, h, link } from "./dom.js";
import { number, percent } from "./format.js";

const MOST = 8;

export async function runsView() {
  const told = await ask("runs");
  const chosen = new Set();
  const compare = h("a", { class: "action", "aria-disabled": "true" }, "Compare");
  const table = h("tbody");
  const search = h("input", { type: "search", placeholder: "name, tag, note, setting", "aria-label": "Search runs" });
  const choose = (name, box) => {
    if (box.checked && chosen.size >= MOST) box.checked = false;
    if (box.checked) chosen.add(name);
    else chosen.delete(name);
    compare.textContent = chosen.size > 1 ? `Compare ${chosen.size} runs` : "Compare: choose two to eight";
    if (chosen.size > 1) compare.setAttribute("href", address("compare", { runs: [...chosen] }));
    else compare.removeAttribute("href");
    compare.setAttribute("aria-disabled", String(chosen.size < 2));
  };
  const fill = () => {
    const wanted = search.value.toLowerCase();
    const rows = told.runs.filter((run) => JSON.stringify(run).toLowerCase().includes(wanted));
    table.replaceChildren(...rows.map((run) => row(run, chosen, choose)));
  };
  search.addEventListener("input", fill);
  fill();
  choose("", { checked: false });
  const node = h("div", {}, h("h1", {}, "Runs"), told.runs.length
    ? [h("div", { class: "tools" }, search, compare), h("div", { class: "scroll" }, h("table", { class: "runs" },
      h("thead", {}, h("tr", {}, ["", "run", "state", "step", "reward", "", "success", "model", "tags"].map((name) =>
        h("th", { scope: "col" }, name)))), table))]
    : h("p", { class: "empty" }, `There are no runs in ${told.root}. recall train --run ${told.root}/NAME makes one.`),
  told.evaluations.length ? evaluations(told.evaluations) : null, told.sets.length ? sets(told.sets) : null);
  return { title: "Runs", node };
}

function row(run, chosen, choose) {
  const box = h("input", { type: "checkbox", "aria-label": `Compare ${run.name}`, checked: chosen.has(run.name),
    onchange: (event) => choose(run.name, event.target) });
  return h("tr", { "data-row": run.name }, h("td", {}, box),
    h("th", { scope: "row" }, link("run", { run: run.name }, run.name, { class: "open" })),
    h("td", {}, h("span", { class: `state ${run.state}` }, run.state)),
    h("td", { class: "n" }, run.step === null ? "–" : `${run.step}${run.of ? ` of ${run.of}` : ""}`),
    h("td", { class: "n" }, number(run.last["reward/mean"])), h("td", {}, spark(run.spark)),
    h("td", { class: "n" }, percent(run.last["success/mean"])),
    h("td", {}, [run.model, run.algorithm, run.seed === undefined || run.seed === null ? null : `seed ${run.seed}`]
      .filter(Boolean).join(" · ")),
    h("td", {}, run.tags.map((tag) => h("span", { class: "chip" }, tag)), run.note
      ? h("span", { class: "soft" }, run.note.slice(0, 60)) : null));
}

function evaluations(found) {
  return h("section", {}, h("h2", {}, "Evaluations"), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["evaluation", "kind", "entries", "scores", "against"].map((name) =>
      h("th", { scope: "col" }, name)))),
    h("tbody", {}, found.map((one) => h("tr", { "data-row": one.name },
      h("th", { scope: "row" }, link("evaluation", { run: one.name }, one.name, { class: "open" })),
      h("td", {}, one.kind.toUpperCase()), h("td", { class: "n" }, one.entries),
      h("td", {}, Object.entries(one.scores).slice(0, 3).map(([name, value]) => `${name} ${percent(value)}`).join(", ")),
      h("td", {}, found.filter((other) => other.kind === one.kind && other !== one).slice(0, 4).map((other) =>
        link("evaluation", { run: other.name, other: one.name }, other.name, { class: "chip" })))))))));
}

function sets(found) {
  return h("section", {}, h("h2", {}, "Sets"), h("ul", { class: "plain" }, found.map((one) => h("li", {},
    link("dataset", { run: one.name }, one.name, { "data-row": one.name }), " ",
    h("span", { class: one.broken ? "bad" : "soft" }, one.broken ? `${one.broken} of ${one.gates} gates are broken`
      : `${one.gates} gates`)))));
}
