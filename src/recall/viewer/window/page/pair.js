// Two policies on the same tasks: where the second does better, where worse, and what each said.
import { ask } from "./api.js";
import { conversation } from "./conversation.js";
import { h, link } from "./dom.js";
import { number, percent } from "./format.js";

export async function pairView({ run, other, split, task }) {
  const told = await ask("pair", { run, other, split });
  const side = h("div");
  const show = async (row) => {
    const both = await Promise.all([[run, row.first], [other, row.second]].map(async ([name, of]) =>
      [name, await ask("trajectory", { run: name, row: of.row })]));
    side.replaceChildren(h("h2", {}, row.task), h("div", { class: "columns" }, both.map(([name, one]) => h("article", {},
      h("header", {}, link("trajectory", { run: name, row: one.row }, name), ` step ${one.step}, reward ${number(one.reward)}`),
      conversation(name, one)))));
    side.scrollIntoView({ block: "start" });
  };
  const rows = told.rows.map((row) => h("tr", { "data-row": row.task }, h("th", { scope: "row" }, h("a", { href: "#",
    class: "open", onclick: (event) => { event.preventDefault(); show(row); } }, row.task)), [row.first, row.second].map((of) =>
    h("td", { class: "n" }, `${of.right} of ${of.count} at step ${of.step}`)), h("td", { class: `n ${row.gap < 0 ? "bad"
    : row.gap > 0 ? "good" : ""}` }, `${row.gap > 0 ? "+" : ""}${percent(row.gap)}`)));
  return { title: `${run} and ${other}`, node: h("div", {}, h("h1", {}, "The same tasks"), h("p", { class: "lead" },
    `${told.common} tasks were played by both: ${other} does better on ${told.better} and worse on ${told.worse}.`),
  rows.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["task", run, other, "gap"].map((name) =>
    h("th", { scope: "col" }, name)))), h("tbody", {}, rows))) : h("p", { class: "empty" },
    "They have no task in common. Runs of one seed, or validated on one split, have."), side) };
}
