// One trajectory: the conversation or its tokens, and beside it the reward, the calls in time, the task, the group.
import { ask, isCopy } from "./api.js";
import { conversation, conversationText, longText } from "./conversation.js";
import { address, append, button, copy, h, link } from "./dom.js";
import { count, number, seconds, signed, words } from "./format.js";
import { tokenView } from "./tokens.js";

export async function trajectoryView({ run, row, show }) {
  const told = await ask("trajectory", { run, row });
  const { line } = told;
  const place = told.group_rows.findIndex((other) => other.row === told.row);
  const body = h("div", { class: "reading" });
  const tabs = ["conversation", "tokens"].map((name) => button(name === "tokens" ? "Tokens" : "Conversation", () =>
    choose(name), { "aria-pressed": "false", "data-show": name }));
  let shown = "";
  const choose = (name) => {
    shown = name;
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.show === name)));
    body.replaceChildren(name === "tokens" ? tokenView(told) : conversation(run, told));
    history.replaceState(null, "", address("trajectory", { run, row, show: name === "tokens" ? name : "" }));
  };
  choose(show === "tokens" ? "tokens" : "conversation");
  const near = (step) => told.group_rows[place + step];
  const turn = (step) => () => {
    if (near(step)) location.hash = address("trajectory", { run, row: near(step).row, show: shown === "tokens" ? shown : "" });
  };
  const node = h("article", { class: "trajectory" }, heading(told), h("div", { class: "tools sticky" }, tabs,
    button("Previous", turn(-1), { disabled: !near(-1) }), h("span", { class: "soft" },
      `${place + 1} of ${told.group_rows.length} in the group`), button("Next", turn(1), { disabled: !near(1) }),
    link("group", { run, row }, "Side by side", { class: "action" }),
    told.same_task > told.group_rows.length ? link("task", { run, task: told.task }, "Over steps", { class: "action" })
      : null, copies(run, told)), h("div", { class: "split reversed" }, body, h("aside", {}, reward(told),
    timeline(told), members(run, told), task(run, told))));
  return { title: `${told.task} at step ${told.step}`, node, live: false, holder: told.holder,
    keys: { "[": turn(-1), "]": turn(1), t: () => choose(shown === "tokens" ? "conversation" : "tokens") } };
}

function heading(told) {
  const { line } = told;
  return h("header", {}, h("h1", {}, told.question.length > 140 ? `${told.question.slice(0, 140)}…` : told.question
    || told.task), h("p", { class: "lead" }, h("span", { class: told.correct ? "good" : "bad" },
    told.correct ? "right" : "wrong"), ` · reward ${number(told.reward)}`, told.advantage === null ? ""
    : ` · advantage ${signed(told.advantage)}`, ` · step ${told.step} · ${told.split} · kind ${told.kind} · stopped by `,
  words(told.stop), ` · ${count(told.turns, "turn")} · ${count(told.calls, "call")} · ${count(told.tokens, "token")} · `,
  seconds(told.duration), line.seed === null || line.seed === undefined ? "" : ` · seed ${line.seed}`),
  line.fault ? h("p", { class: "problem" }, "A fault of ours: ", line.fault, " It is left out of the gradient.") : null);
}

function copies(run, told) {
  const text = button("Copy text", (event) => copy(event.target, conversationText(told)));
  const json = button("Copy JSON", async (event) => {
    const source = event.target;
    await copy(source, JSON.stringify(isCopy() ? told.line : await ask("raw", { run, row: told.row }), null, 1));
  });
  const snippet = button("Copy Python", (event) => copy(event.target, python(run, told)));
  return h("span", { class: "copies" }, text, json, snippet);
}

/** A program that reads this trajectory from its file and scores it. */
export function python(run, told) {
  const place = told.group_rows.findIndex((other) => other.row === told.row);
  return `from itertools import islice
from pathlib import Path

from recall import rewards
from recall.store import read_groups

file = Path("RUNS") / ${JSON.stringify(run)} / "trajectories" / ${JSON.stringify(told.file)}  # RUNS: the directory of runs
stored = next(islice(read_groups(file), ${told.group}, None))
task, trajectory = stored.group.task, stored.group.trajectories[${place}]
print(task.question, trajectory.answer, stored.group.rewards[${place}])
print(rewards.get(${JSON.stringify(told.reward_name || "outcome")})(task, trajectory))
`;
}

function reward(told) {
  const { line } = told;
  const parts = Object.entries(line.reward?.parts ?? {});
  const scores = told.group_rows.map((row) => row.reward).filter((value) => value !== null);
  const mean = scores.reduce((sum, value) => sum + value, 0) / (scores.length || 1);
  const spread = Math.sqrt(scores.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (scores.length || 1));
  const accepted = (line.task.ground_truth ?? []).map((answer) => h("code", {}, answer));
  return h("section", {}, h("h2", {}, "Reward"), h("p", {}, h("b", { class: "big" }, number(line.reward?.score)),
    told.reward_name ? ` by the reward ${told.reward_name}` : "", line.reward?.correct ? ", solved" : ", not solved"),
  parts.length ? h("table", { class: "parts" }, h("tbody", {}, parts.map(([name, value]) => h("tr", {},
    h("th", { scope: "row" }, words(name)), h("td", { class: "n" }, number(value)), h("td", {},
      h("meter", { min: 0, max: Math.max(1, value), value: Math.max(0, value), title: String(value) }))))))
    : h("p", { class: "soft" }, "This reward has no parts."),
  h("dl", {}, h("dt", {}, "Answered"), h("dd", {}, line.answer === null ? h("span", { class: "soft" }, "nothing")
    : h("code", {}, line.answer)), accepted.length ? [h("dt", {}, "Accepted"), h("dd", {}, accepted.map((each, at) =>
    [at ? " or " : "", each]))] : null,
  line.task.answer_type ? [h("dt", {}, "Compared as"), h("dd", {}, line.task.answer_type.kind,
    line.task.answer_type.tolerance ? ` within ${line.task.answer_type.tolerance}` : "")] : null,
  line.task.changes ? [h("dt", {}, "Has to change"), h("dd", {}, h("pre", {}, JSON.stringify(line.task.changes, null, 1))),
    h("dt", {}, "Changed"), h("dd", {}, h("pre", {}, JSON.stringify(line.changes, null, 1)))] : null,
  h("dt", {}, "Advantage"), h("dd", {}, told.advantage === null
    ? "not computed: it was played to be measured, or its group was not learned from"
    : `${signed(told.advantage)}; the group's ${scores.length} rewards have the mean ${number(mean)} `
      + `and the standard deviation ${number(spread)}` + (spread === 0 ? ", so there is nothing to learn" : ""))));
}

function timeline(told) {
  const { calls, duration_s: whole } = told.line;
  if (!calls.length) return h("section", {}, h("h2", {}, "Calls"), h("p", { class: "soft" }, "It called no tool."));
  const spent = calls.reduce((sum, call) => sum + (call.duration_s ?? 0), 0);
  const longest = Math.max(...calls.map((call) => call.duration_s ?? 0), 1e-9);
  const share = whole ? ` of ${seconds(whole)}, the rest went to sampling and waiting` : "";
  const bars = calls.map((call, at) => h("li", {}, h("a", { href: "#", onclick: (event) => {
    event.preventDefault();
    document.getElementById(`call-${at}`)?.scrollIntoView({ block: "center" });
  } }, h("span", { class: "turn" }, `turn ${call.turn + 1}`), h("code", {}, call.name || "(malformed)"),
  h("meter", { min: 0, max: longest, value: call.duration_s ?? 0, "aria-label": "duration" }),
  h("span", { class: "n" }, seconds(call.duration_s)), h("span", { class: call.status === "ok" ? "good" : "bad" },
    words(call.status)))));
  return h("section", {}, h("h2", {}, "Calls in time"), h("p", { class: "soft" }, `${seconds(spent)} in tools${share}. `
    + "Durations are recorded and starts are not, so calls of one turn may have run at once."), h("ol",
    { class: "timeline" }, bars));
}

function members(run, told) {
  return h("section", {}, h("h2", {}, "Its group"), h("ol", { class: "members" }, told.group_rows.map((row) => h("li",
    row.row === told.row ? { "aria-current": "true" } : {}, link("trajectory", { run, row: row.row },
      [h("span", { class: row.correct ? "good" : "bad" }, row.correct ? "✓" : "✗"), ` ${number(row.reward)}`,
        row.advantage === null ? "" : ` (${signed(row.advantage, 2)})`])))));
}

function task(run, told) {
  const { task: about } = told.line;
  const tools = (about.tools ?? []).map((tool) => h("details", {}, h("summary", {}, h("code", {}, tool.name), " ",
    h("span", { class: "soft" }, tool.description ?? "")), h("pre", {}, JSON.stringify(tool.parameters, null, 1))));
  const known = ["id", "data_source", "ability", "depth", "kind"].filter((name) => about[name] !== undefined
    && about[name] !== "");
  return h("section", {}, h("h2", {}, "Task"), h("p", {}, longText(about.question ?? "")), h("dl", {}, known.map((name) =>
    [h("dt", {}, words(name)), h("dd", {}, String(about[name]))])), h("h3", {}, "Tools"), tools.length ? tools
    : h("p", { class: "soft" }, "It has no tools."), about.env ? h("details", {}, h("summary", {}, "Their source"),
    h("pre", { class: "code" }, longText(about.env, about.env_chars))) : null, about.reference?.length
    ? h("details", {}, h("summary", {}, "Reference solution"), h("ol", {}, about.reference.map((item) => h("li", {},
      h("code", {}, "name" in item ? `${item.name}(${JSON.stringify(item.arguments)})` : JSON.stringify(item))))))
    : h("p", { class: "soft" }, "The task has no reference solution."), Object.keys(about.extra ?? {}).length
    ? h("details", {}, h("summary", {}, "What else its row carries"), h("pre", {}, JSON.stringify(about.extra, null, 1)))
    : null);
}
