// The shell: which view the address names, keys, and new data while a run writes.
import { ask, isCopy } from "./api.js";
import { compareView } from "./compare.js";
import { datasetView } from "./dataset.js";
import { address, append, button, h, link } from "./dom.js";
import { evaluationView } from "./evaluation.js";
import { groupView, taskView } from "./group.js";
import { healthView } from "./health.js";
import { listView } from "./list.js";
import { pairView } from "./pair.js";
import { runView } from "./run.js";
import { runsView } from "./runs.js";
import { trajectoryView } from "./trajectory.js";

const VIEWS = { runs: runsView, run: runView, list: listView, trajectory: trajectoryView, group: groupView,
  task: taskView, health: healthView, compare: compareView, pair: pairView, evaluation: evaluationView,
  dataset: datasetView };
const TABS = [["run", "Curves"], ["list", "Trajectories"], ["health", "Health"]];
const PULSE_MS = 2000;
const KEYS = [["j, k", "next, previous row or token"], ["Enter", "open"], ["[, ]", "previous, next of the group"],
  ["t", "tokens or conversation"], ["/", "search"], ["u", "up: to the list, to the run, to all runs"],
  ["h", "health of the run"], ["?", "this list"], ["Esc", "close"]];

let current = { view: null, refresh: null, run: "", up: "#runs", version: null, keys: {} };
let visit = 0;

/** The view and the parameters that an address names; a parameter that stands several times is a list. */
function route() {
  const [name, query] = location.hash.slice(1).split("?");
  const parameters = {};
  for (const [key, value] of new URLSearchParams(query ?? "")) {
    parameters[key] = key in parameters ? [parameters[key], value].flat() : value;
  }
  return { name: name in VIEWS ? name : "runs", parameters };
}

async function show() {
  const { name, parameters } = route();
  const mine = ++visit;
  const place = document.getElementById("view");
  place.setAttribute("aria-busy", "true");
  let made;
  try {
    made = await VIEWS[name](parameters);
  } catch (error) {
    made = { title: "Not shown", node: h("p", { class: "problem", role: "alert" }, error.message) };
  }
  if (mine !== visit) return;
  const run = parameters.run ?? "";
  current = { keys: {}, up: upFrom(name, run, made.holder), ...made, run: made.live ? run : "", version: null };
  place.replaceChildren(made.node);
  place.removeAttribute("aria-busy");
  place.dataset.view = name;
  document.title = `${made.title} · ReCall window`;
  crumbs(name, parameters, made.holder);
  made.shown?.();
  if (!made.keepsFocus) place.focus({ preventScroll: true });
  if (!made.keepsScroll) scrollTo(0, 0);
}

/** Whether what holds a trajectory is an evaluation and no run, so that it has entries and no curves. */
function isEvaluation(holder) {
  return holder === "qa" || holder === "bfcl";
}

function upFrom(name, run, holder) {
  if (["run", "compare", "evaluation", "dataset"].includes(name) || !run) return "#runs";
  if (isEvaluation(holder)) return address("evaluation", { run });
  return ["trajectory", "group", "task"].includes(name) ? address("list", { run }) : address("run", { run });
}

function crumbs(name, parameters, holder) {
  const run = parameters.run;
  const parts = [link("runs", {}, "Runs", name === "runs" ? { "aria-current": "page" } : {})];
  if (run && !["evaluation", "dataset"].includes(name)) {
    parts.push(h("span", { class: "run-name", title: run }, run));
    for (const [view, label] of isEvaluation(holder) ? [["evaluation", "Entries"], TABS[1]] : TABS) {
      const here = view === name || (view === "list" && ["trajectory", "group", "task"].includes(name));
      parts.push(link(view, { run }, label, here ? { "aria-current": "page" } : {}));
    }
  }
  document.getElementById("crumbs").replaceChildren();
  append(document.getElementById("crumbs"), parts);
}

async function pulse() {
  const state = document.getElementById("state");
  if (!current.run || document.hidden || isCopy()) {
    if (!current.run) state.textContent = isCopy() ? "a copy" : "";
    return;
  }
  const asked = current;
  try {
    const told = await ask("pulse", { run: asked.run });
    if (asked !== current) return;
    const indexing = told.indexing;
    const share = indexing?.total ? ` ${Math.round((100 * indexing.read) / indexing.total)} %` : "";
    const words = indexing ? `${told.state}, reading${share}` : told.state;
    if (state.textContent !== words) state.textContent = words;
    state.dataset.state = told.state;
    const changed = asked.version !== null && asked.version !== told.version;
    asked.version = told.version;
    if (changed) await asked.refresh?.();
  } catch (error) {
    state.textContent = "the server does not answer";
    state.dataset.state = "gone";
  }
}

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = current.keys[event.key] ?? shared(event.key);
  if (act) {
    event.preventDefault();
    act();
  }
}

function shared(key) {
  const rows = [...document.querySelectorAll("main [data-row] a.open, main a[data-row]")];
  const at = rows.indexOf(document.activeElement);
  if (key === "j" && rows.length) return () => rows[Math.min(at + 1, rows.length - 1)].focus();
  if (key === "k" && rows.length) return () => rows[Math.max(at - 1, 0)].focus();
  if (key === "/") {
    const search = document.querySelector("main input[type=search]");
    return search ? () => search.focus() : null;
  }
  if (key === "u") return () => { location.hash = current.up; };
  if (key === "h" && current.run) return () => { location.hash = address("health", { run: current.run }); };
  return key === "?" ? help : null;
}

function help() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(
    h("h2", {}, "Keys"),
    h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    button("Close", () => dialog.close()),
  );
  dialog.showModal();
}

addEventListener("hashchange", show);
addEventListener("keydown", keyed);
document.getElementById("keys").addEventListener("click", help);
await show();
await pulse();
setInterval(pulse, PULSE_MS);
