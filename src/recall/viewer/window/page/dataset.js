// The report on a set of tasks: what `recall data report` measured.
import { ask } from "./api.js";
import { h } from "./dom.js";
import { number } from "./format.js";

export async function datasetView({ run }) {
  const told = await ask("dataset", { run });
  return { title: run, node: h("div", {}, h("h1", {}, told.name), h("p", { class: "lead" }, told.verdict),
    told.sections.map((section) => h("section", { id: section.anchor }, h("h2", {}, section.title), section.lead
      ? h("p", { class: "soft" }, section.lead) : null, section.tables.filter((table) => table.rows.length).map(table),
    h("div", { class: "charts" }, section.charts.map((one) => (one.shape === "bars" ? bars(one) : matrix(one)))))) ) };
}

function table(one) {
  return h("div", { class: "scroll" }, one.title ? h("h3", {}, one.title) : null, h("table", {}, h("thead", {}, h("tr", {},
    one.head.map((name) => h("th", { scope: "col" }, name.trim())))), h("tbody", {}, one.rows.map((row, at) => h("tr",
    { class: one.bad.includes(at) ? "bad" : null }, row.map((cell, place) => (place ? h("td", {}, cell) : h("th",
      { scope: "row" }, cell))))))), one.note ? h("p", { class: "soft" }, one.note) : null);
}

function bars(one) {
  const most = Math.max(...one.bars.map(([, amount]) => amount), 1);
  return h("figure", { class: "chart" }, h("figcaption", {}, one.title), h("table", { class: "bars" }, h("tbody", {},
    one.bars.map(([key, amount]) => h("tr", {}, h("th", { scope: "row" }, String(key)), h("td", {}, h("meter", { min: 0,
      max: most, value: amount, "aria-label": `${amount}` })), h("td", { class: "n" }, number(amount)))))));
}

function matrix(one) {
  return h("figure", { class: "chart" }, h("figcaption", {}, one.title), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["", ...one.columns].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {},
      one.rows.map((name, at) => h("tr", {}, h("th", { scope: "row" }, name), one.counts[at].map((value) => h("td",
        { class: "n" }, value))))))));
}
