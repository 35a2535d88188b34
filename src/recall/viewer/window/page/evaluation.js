// An evaluation entry by entry, alone or beside another one of the same entries.
import { ask } from "./api.js";
import { conversation, longText } from "./conversation.js";
import { append, button, h, link } from "./dom.js";
import { number, percent, words } from "./format.js";

const PAGE = 100;
const SHOWN = [["all", () => true], ["right", (row) => row.right], ["wrong", (row) => !row.right],
  ["changed", (row, before) => before !== undefined && before.right !== row.right]];

export async function evaluationView({ run, other }) {
  const told = await ask("evaluation", { run });
  const held = other ? await ask("evaluation", { run: other }) : null;
  const before = new Map((held?.rows ?? []).map((row) => [row.id, row]));
  const kinds = [...new Set(told.rows.map((row) => row.kind))].sort();
  const list = h("div", { class: "entries" });
  const said = h("p", { role: "status", class: "lead" });
  const search = h("input", { type: "search", placeholder: "words", "aria-label": "Search entries" });
  const kind = h("select", { "aria-label": "Kind" }, h("option", { value: "" }, "every kind"), kinds.map((name) =>
    h("option", { value: name }, name)));
  const which = h("select", { "aria-label": "Outcome" }, SHOWN.filter(([name]) => held || name !== "changed").map(([name]) =>
    h("option", { value: name }, name)));
  const fill = (upTo = PAGE) => {
    const fits = SHOWN.find(([name]) => name === which.value)[1];
    const needle = search.value.toLowerCase();
    const rows = told.rows.filter((row) => fits(row, before.get(row.id)) && (!kind.value || row.kind === kind.value)
      && (!needle || JSON.stringify(row).toLowerCase().includes(needle)));
    const right = rows.filter((row) => row.right).length;
    said.textContent = `${rows.length} entries, ${right} right` + (held ? `; before, ${rows.filter((row) =>
      before.get(row.id)?.right).length} of them` : "");
    list.replaceChildren(...rows.slice(0, upTo).map((row) => entry(row, before.get(row.id), run, other)));
    if (rows.length > upTo) list.append(button(`${rows.length - upTo} more`, () => fill(upTo + 10 * PAGE)));
  };
  [search, kind, which].forEach((control) => control.addEventListener("input", () => fill()));
  fill();
  const scores = Object.entries(told.scores).map(([name, value]) => h("div", {}, h("dt", {}, words(name)), h("dd", {},
    percent(value), held ? h("span", { class: "soft" }, ` from ${percent(held.scores[name])}`) : null)));
  return { title: run, node: h("div", {}, h("h1", {}, run, held ? h("span", { class: "soft" }, ` after ${other}`) : null),
    h("dl", { class: "facts" }, scores), told.notes.length ? h("div", { class: "notes", role: "note" }, told.notes.map((note) =>
      h("p", {}, note))) : null, h("div", { class: "tools" }, search, kind, which), said, list,
    h("details", { class: "block" }, h("summary", {}, "What was measured"), h("dl", {}, Object.entries(told.manifest).map(([name,
      value]) => [h("dt", {}, name), h("dd", {}, JSON.stringify(value))])))) };
}

function entry(row, before, run, other) {
  const body = h("div", { class: "entry-body" });
  const details = h("details", { class: `entry ${row.right ? "ok" : "failed"}` }, h("summary", { "data-row": row.id },
    h("span", { class: row.right ? "good" : "bad" }, row.right ? "✓" : "✗"), before ? h("span", { class: "soft" },
      ` was ${before.right ? "✓" : "✗"}`) : null, " ", h("b", {}, row.id), " ", h("span", { class: "chip" }, row.kind),
    ` ${row.asked.slice(0, 160)}`), body);
  details.addEventListener("toggle", () => {
    if (!details.open || body.childElementCount) return;
    append(body, before ? [h("div", { class: "columns" }, one("before", before, other), one("now", row, run))]
      : [one("", row, run)]);
  });
  return details;
}

/** The trajectory behind an entry, as a conversation; what was said turn by turn where it was not kept. */
function behind(row, run) {
  const said = row.steps.map((text, at) => h("section", { class: "message policy" }, h("h3", {}, `turn ${at + 1}`),
    h("pre", {}, longText(text))));
  if (row.trajectory === null || row.trajectory === undefined) return said;
  const place = h("div", {}, said);
  ask("trajectory", { run, row: row.trajectory }).then((told) => {
    place.replaceChildren(h("p", {}, link("trajectory", { run, row: row.trajectory }, "The trajectory behind it", { class:
      "action" })), conversation(run, told));
  }, (error) => append(place, h("p", { class: "soft" }, error.message)));
  return place;
}

function one(title, row, run) {
  const answer = typeof row.answer === "string" ? row.answer : JSON.stringify(row.answer, null, 1);
  return h("article", {}, title ? h("h3", {}, title) : null, h("p", {}, longText(row.asked)), h("dl", {}, h("dt", {},
    "Answer"), h("dd", {}, row.answer === null || row.answer === undefined ? "none" : h("pre", {}, longText(answer))),
  row.accepted.length ? [h("dt", {}, "Accepted"), h("dd", {}, row.accepted.map((each) => h("code", {}, each, " ")))] : null,
  Object.entries(row.scores).map(([name, value]) => [h("dt", {}, words(name)), h("dd", {}, number(value))]), row.problem
    ? [h("dt", {}, "What is wrong"), h("dd", { class: "bad" }, longText(row.problem))] : null,
  Object.entries(row.facts).map(([name, value]) => [h("dt", {}, words(name)), h("dd", {}, Array.isArray(value)
    ? h("ol", {}, value.map((each) => h("li", {}, String(each)))) : String(value))])), behind(row, run));
}
