// The trajectories of a run: filters, counts, and a page of rows. The filter stands in the address.
import { ask } from "./api.js";
import { address, append, button, h, link } from "./dom.js";
import { number, percent, seconds, signed, words } from "./format.js";

const LIMIT = 50;
const SPANS = [["step", "Step"], ["reward", "Reward"], ["advantage", "Advantage"], ["depth", "Depth"],
  ["calls", "Calls"], ["failed", "Failed calls"], ["turns", "Turns"], ["tokens", "Tokens"], ["sampled", "Sampled"],
  ["logprob", "Mean logprob"], ["duration", "Seconds"]];
const FACETS = [["split", "Split"], ["correct", "Outcome"], ["kind", "Kind"], ["stop", "Stopped by"],
  ["status", "A call ended"], ["tool", "Tool"]];
const SORTS = [["", "as written"], ["-reward", "reward, highest first"], ["reward", "reward, lowest first"],
  ["-advantage", "advantage, highest first"], ["advantage", "advantage, lowest first"], ["-step", "newest first"],
  ["-tokens", "longest first"], ["-calls", "most calls"], ["-failed", "most failed calls"],
  ["logprob", "least likely first"], ["-slowest_s", "slowest call first"], ["-duration", "longest time first"]];

export async function listView(parameters) {
  const { run } = parameters;
  const table = h("tbody");
  const said = h("p", { class: "lead", role: "status" });
  const facets = h("div", { class: "facets" });
  const pager = h("div", { class: "tools" });
  const go = (changed) => {
    location.hash = address("list", { ...parameters, start: "", ...changed });
  };
  const refresh = async () => {
    const told = await ask("list", { limit: LIMIT, ...parameters });
    const share = told.total === told.of ? "" : ` of ${told.of.toLocaleString("en")}`;
    const right = told.facets.correct?.true ?? 0;
    said.replaceChildren();
    append(said, [`${told.total.toLocaleString("en")}${share} trajectories`,
      told.total ? `, ${percent(right / told.total)} right` : "", told.cut ? ", the newest that the words were found in" : "",
      told.indexing ? "; the rest of the run is still being read" : ""]);
    table.replaceChildren(...told.rows.map((row) => line(run, row)));
    facets.replaceChildren(...facetLists(told.facets, parameters, go));
    pager.replaceChildren(...pages(told, parameters));
  };
  const about = await ask("run", { run });
  await refresh();
  const node = h("div", {}, h("h1", {}, "Trajectories"), form(parameters, about, go), chips(parameters, go), said,
    h("div", { class: "split" }, facets, h("div", { class: "scroll" }, h("table", { class: "list" },
      h("thead", {}, h("tr", {}, ["step", "", "reward", "advantage", "task", "answer, or what went wrong", "calls",
        "tokens", "time"].map((name) => h("th", { scope: "col" }, name)))), table), pager)));
  return { title: `Trajectories of ${run}`, live: about.holder === "run", holder: about.holder, refresh, node };
}

function line(run, row) {
  const wrong = row.problem ? h("span", { class: "bad" }, row.problem) : null;
  return h("tr", { "data-row": row.row },
    h("td", { class: "n" }, row.step, row.split === "train" ? "" : h("span", { class: "soft" }, ` ${row.split}`)),
    h("td", {}, h("span", { class: row.correct ? "good mark" : "bad mark", title: row.correct ? "right" : "wrong" },
      row.fault ? "fault" : row.correct ? "✓" : "✗")),
    h("td", { class: "n" }, number(row.reward)), h("td", { class: "n" }, signed(row.advantage)),
    h("td", {}, link("trajectory", { run, row: row.row }, row.question || row.task, { class: "open" }),
      h("span", { class: "soft" }, `  kind ${row.kind}${row.stop === "done" ? "" : ` · ${words(row.stop)}`}`)),
    h("td", {}, row.answer ? h("code", {}, row.answer) : null, " ", wrong),
    h("td", { class: "n" }, row.calls, row.failed ? h("span", { class: "bad" }, ` −${row.failed}`) : null),
    h("td", { class: "n" }, row.tokens.toLocaleString("en")), h("td", { class: "n" }, seconds(row.duration)));
}

function form(parameters, about, go) {
  const search = h("input", { type: "search", name: "text", value: parameters.text ?? "",
    placeholder: 'words, or "words in a row"', "aria-label": "Search what was said" });
  const task = h("input", { name: "task", value: parameters.task ?? "", placeholder: "task id", "aria-label": "Task id" });
  const sorts = [...SORTS, ...about.parts.flatMap((part) => [[`-part:${part}`, `${part}, highest first`]])];
  const sort = h("select", { name: "sort", "aria-label": "Order", onchange: () => submit() }, sorts.map(([value, text]) =>
    h("option", { value, selected: value === (parameters.sort ?? "") }, text)));
  const spans = SPANS.map(([name, text]) => h("label", {}, text, h("input", { name, value: parameters[name] ?? "",
    placeholder: "3..7", inputmode: "decimal" })));
  const parts = h("label", {}, "Part of the reward", h("input", { name: "part", value: [parameters.part ?? ""].flat()[0],
    placeholder: `${about.parts[0] ?? "name"}=0..1`, list: "parts" }), h("datalist", { id: "parts" },
    about.parts.map((part) => h("option", { value: `${part}=1` }))));
  const made = h("form", { class: "filters" }, h("div", { class: "tools" }, search, task, sort, button("Filter", () =>
    submit())), h("details", { open: SPANS.some(([name]) => parameters[name]) || Boolean(parameters.part) },
    h("summary", {}, "By number"), h("div", { class: "spans" }, spans, parts)));
  const submit = () => go(Object.fromEntries(new FormData(made)));
  made.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.tagName === "INPUT") { event.preventDefault(); submit(); }
  });
  return made;
}

/** What is filtered by, each with a way to take it away. */
function chips(parameters, go) {
  const set = Object.entries(parameters).filter(([name, value]) => value !== "" && !["run", "start", "limit", "sort"]
    .includes(name));
  if (!set.length) return null;
  return h("p", { class: "tools" }, set.map(([name, value]) => button(`${name} ${[value].flat().join(" or ")} ×`, () =>
    go({ [name]: "" }), { class: "chip", "aria-label": `Without the filter ${name}` })), button("Clear", () => {
    location.hash = address("list", { run: parameters.run });
  }));
}

function facetLists(facets, parameters, go) {
  return FACETS.filter(([name]) => Object.keys(facets[name] ?? {}).length).map(([name, title]) => {
    const entries = Object.entries(facets[name]).filter(([, amount]) => amount).sort((a, b) => b[1] - a[1]);
    const chosen = [parameters[name] ?? []].flat();
    const most = Math.max(...entries.map(([, amount]) => amount), 1);
    const items = entries.map(([value, amount]) => {
      const on = chosen.includes(value);
      return h("li", {}, button([h("span", {}, label(name, value)), h("span", { class: "n" },
        amount.toLocaleString("en"))], () => go({ [name]: on ? chosen.filter((each) => each !== value) : value }),
      { "aria-pressed": String(on), class: "facet" }));
    });
    items.forEach((item, at) => item.firstChild.style.setProperty("--share", `${(100 * entries[at][1]) / most}%`));
    const list = h("ul", { class: "plain" }, items.slice(0, 8));
    const rest = items.length > 8 ? button(`${items.length - 8} more`, (event) => {
      append(list, items.slice(8, 300));
      event.target.remove();
    }, { class: "more" }) : null;
    return h("section", {}, h("h2", {}, title), list, rest);
  });
}

function label(name, value) {
  if (name === "correct") return value === "true" ? "right" : "wrong";
  return value === "" ? "(none)" : name === "stop" || name === "status" ? words(value) : value;
}

function pages(told, parameters) {
  const start = told.start;
  const end = start + told.rows.length;
  if (!told.rows.length) return [h("p", { class: "empty" }, told.of ? "Nothing matches." : "No trajectories yet.")];
  const turn = (to, text) => link("list", { ...parameters, start: to || "" }, text, { class: "action" });
  return [start > 0 ? turn(Math.max(0, start - LIMIT), "Earlier") : null,
    h("span", { class: "soft" }, `${(start + 1).toLocaleString("en")} to ${end.toLocaleString("en")}`),
    end < told.total ? turn(end, "Later") : null].filter(Boolean);
}
