// A trajectory as a conversation: turns of the policy, calls with their results, words of the environment.
import { isCopy, wholeText } from "./api.js";
import { append, button, h, marked, visible } from "./dom.js";
import { seconds, words } from "./format.js";

const PIECE = 8000;
const STOP = /(?:\s*<\|[^|<>]*\|>)+\s*$/;

/** A long text in pieces, so that ten megabytes of it do not stop the page. `chars` is its true length where it was cut. */
export function longText(text, chars, whole) {
  const box = h("span", {}, marked(text.slice(0, PIECE)));
  let at = PIECE;
  const left = () => (chars ?? text.length) - at;
  if (left() <= 0) return box;
  const more = button("", async () => {
    if (at >= text.length && whole) {
      more.disabled = true;
      text = await whole();
      more.disabled = false;
    }
    box.append(visible(text.slice(at, at + 10 * PIECE)));
    at = Math.min(at + 10 * PIECE, text.length);
    label();
  }, { class: "more" });
  const label = () => {
    more.hidden = left() <= 0 || (at >= text.length && !whole);
    more.textContent = `show more, ${left().toLocaleString("en")} characters are left`;
  };
  label();
  return h("span", {}, box, more);
}

/** The conversation of `told`, as `api/trajectory` and `api/group` answer it; `opened` shows the prompt. */
export function conversation(run, told, opened = false) {
  const { line } = told;
  const parts = [];
  let turn = -1;
  let called = 0;
  line.segments.forEach((segment, at) => {
    const whole = segment.text_chars && !isCopy() ? () => wholeText(run, told.row, `segment-${at}`) : undefined;
    if (at === 0 && segment.author === "environment") {
      parts.push(h("details", { class: "message prompt", open: opened }, h("summary", {}, "The prompt, ",
        `${segment.count.toLocaleString("en")} tokens`), h("pre", {}, longText(segment.text, segment.text_chars, whole))));
    } else if (segment.author === "policy") {
      turn += 1;
      const text = segment.text.replace(STOP, "");
      const calls = line.calls.filter((call) => call.turn === turn);
      parts.push(message("policy", `policy, turn ${turn + 1}`, segment, h("pre", {}, longText(text, segment.text_chars,
        whole)), calls.map((call) => callCard(run, told, call, called++))));
    } else {
      const answered = line.calls.some((call) => call.turn === turn);
      const body = h("pre", {}, longText(segment.text.trim(), segment.text_chars, whole));
      parts.push(answered ? h("details", { class: "message environment" }, h("summary", {}, "what the policy read, ",
        `${segment.count.toLocaleString("en")} tokens`), body) : message("environment", "environment", segment, body));
    }
  });
  // A limit may end an episode before the calls of its last turn are answered; what was recorded is shown all the same.
  for (; called < line.calls.length; called++) parts.push(callCard(run, told, line.calls[called], called));
  return h("div", { class: "conversation" }, parts.length ? parts : h("p", { class: "empty" }, "It has no tokens."));
}

function message(author, who, segment, ...body) {
  return h("section", { class: `message ${author}`, "aria-label": who }, h("h3", {}, who, " ", h("span", { class: "soft" },
    `${segment.count.toLocaleString("en")} tokens`, segment.from_text ? ", ids read from text" : "")), body);
}

function callCard(run, told, call, at) {
  const whole = call.result_chars && !isCopy() ? () => wholeText(run, told.row, `result-${told.line.calls.indexOf(call)}`)
    : undefined;
  const given = Object.entries(call.arguments ?? {}).map(([name, value]) => h("span", { class: "argument" },
    h("b", {}, name), "=", JSON.stringify(value)));
  return h("div", { class: `call ${call.status === "ok" ? "ok" : "failed"}`, id: `call-${at}` }, h("div", { class: "head" },
    h("code", {}, h("b", {}, call.name || "(malformed)"), "(", given, ")"), h("span", { class: "status" },
      words(call.status ?? "")), h("span", { class: "soft" }, seconds(call.duration_s))), h("pre", { class: "result" },
    longText(call.result ?? "", call.result_chars, whole)));
}

/** The same as plain text, to be copied. */
export function conversationText(told) {
  const { line } = told;
  const parts = [`${told.task}  step ${told.step}  reward ${told.reward}  ${told.correct ? "right" : "wrong"}`];
  for (const segment of line.segments) parts.push(`── ${segment.author}, ${segment.count} tokens`, segment.text);
  for (const call of line.calls) {
    parts.push(`turn ${call.turn + 1} ${call.name}(${JSON.stringify(call.arguments)}) → ${call.status}: ${call.result}`);
  }
  return visible(parts.join("\n"));
}
