// A group side by side, and one task over the steps of training.
import { ask } from "./api.js";
import { conversation } from "./conversation.js";
import { h, link } from "./dom.js";
import { count, number, percent, seconds, signed, words } from "./format.js";

export async function groupView({ run, row }) {
  const told = await ask("group", { run, row });
  const { rows } = told;
  const scores = rows.map((each) => each.reward ?? 0);
  const mean = scores.reduce((sum, value) => sum + value, 0) / scores.length;
  const same = scores.every((value) => value === scores[0]);
  const first = rows[0];
  const node = h("div", {}, h("h1", {}, first.question || first.task), h("p", { class: "lead" },
    `${rows.length} trajectories of step ${first.step}, ${first.split}; mean reward ${number(mean)}`,
    same ? "; their rewards are all equal, so this group teaches nothing" : "", " · ",
    link("task", { run, task: first.task }, "this task over steps")), columns(run, rows));
  return { title: `Group of ${first.task}`, node, holder: told.holder };
}

function columns(run, rows) {
  return h("div", { class: "columns" }, rows.map((row) => h("article", { "aria-label": `reward ${row.reward}` },
    h("header", {}, link("trajectory", { run, row: row.row }, `${row.correct ? "✓ right" : "✗ wrong"}`, { "data-row": row.row,
      class: row.correct ? "good" : "bad" }), h("span", {}, `reward ${number(row.reward)}`), row.advantage === null ? null
      : h("b", { class: row.advantage < 0 ? "bad" : row.advantage > 0 ? "good" : "soft" }, `advantage ${signed(row.advantage)}`),
    h("span", { class: "soft" }, `${count(row.calls, "call")}, ${count(row.sampled, "sampled token")}, ${words(row.stop)}, `,
      seconds(row.duration))), conversation(run, row))));
}

export async function taskView({ run, task }) {
  const told = await ask("task", { run, task });
  const question = told.times[0]?.rows[0]?.question;
  const node = h("div", {}, h("h1", {}, question || task), h("p", { class: "lead" }, `Task ${task}, played `,
    told.times.length === 1 ? "once" : `${told.times.length} times`, "; before, during and after, left to right."),
  h("table", { class: "times" }, h("thead", {}, h("tr", {}, ["step", "split", "right", "mean reward"].map((name) =>
    h("th", { scope: "col" }, name)))), h("tbody", {}, told.times.map((time) => h("tr", {}, h("th", { scope: "row" },
    time.step), h("td", {}, time.split), h("td", { class: "n" }, `${time.right} of ${time.count}`, ` (${percent(
    time.right / time.count)})`), h("td", { class: "n" }, number(time.mean)))))), h("div", { class: "columns" },
    told.times.map((time) => h("article", {}, h("h2", {}, `Step ${time.step}`, h("span", { class: "soft" },
      ` ${time.split}, ${time.right} of ${time.count} right`)), time.rows.map((row) => h("div", {}, h("header", {},
      link("trajectory", { run, row: row.row }, row.correct ? "✓ right" : "✗ wrong", { class: row.correct ? "good" : "bad",
        "data-row": row.row }), ` reward ${number(row.reward)}`), conversation(run, row)))))));
  return { title: `${task} over steps`, node, holder: told.holder };
}
