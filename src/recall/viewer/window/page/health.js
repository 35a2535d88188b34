// What is wrong with a run, in words.
import { ask } from "./api.js";
import { chart } from "./charts.js";
import { h, link } from "./dom.js";

const NAMES = { bad: "wrong", warn: "look", good: "fine", unknown: "not known" };

export async function healthView({ run }) {
  const list = h("div", { class: "findings" });
  const refresh = async () => {
    const [told, metrics] = await Promise.all([ask("health", { run }), ask("metrics", { run })]);
    list.replaceChildren(...told.findings.map((finding) => card(run, finding, metrics)));
  };
  await refresh();
  return { title: `Health of ${run}`, live: true, refresh, node: h("div", {}, h("h1", {}, "Health"), h("p",
    { class: "lead" }, "What the last ten steps look like. Thresholds are those of docs/window.md."), list) };
}

function card(run, finding, metrics) {
  const values = metrics.columns[finding.metric];
  const troubled = finding.level === "bad" || finding.level === "warn";
  return h("section", { class: `finding ${finding.level}` }, h("span", { class: "level" }, NAMES[finding.level]),
    h("div", {}, h("h2", {}, finding.words), finding.advice ? h("p", {}, finding.advice) : null,
      Object.keys(finding.filter).length ? h("p", {}, link("list", { run, ...finding.filter },
        "The trajectories that show it", { class: "action", "data-row": finding.check })) : null),
    values && troubled ? chart(finding.metric, metrics.steps, [{ name: finding.metric, values }]) : null);
}
