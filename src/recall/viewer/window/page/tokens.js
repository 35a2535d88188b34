// The tokens of a trajectory, coloured by what is known of each. What a run does not record is said, not made up.
import { append, button, h, visible } from "./dom.js";
import { number, signed } from "./format.js";

const BLOCK = 120;
const FRAME_MS = 6;
const LEVELS = 9;
const MODES = [["author", "Author"], ["mask", "Mask"], ["logprob", "Logprob"], ["entropy", "Entropy"],
  ["advantage", "Advantage"], ["ratio", "Ratio"]];
const MISSING = {
  logprob: "The policy wrote no token here, so there are no log-probabilities.",
  entropy: "The entropy at each token was not recorded: the local learner writes it for groups whose rewards differ, and "
    + "passes over the others. policy/entropy has its mean over a step.",
  ratio: "The trainer's log-probabilities were not recorded, so ratios are not known token by token: the local learner writes "
    + "them for groups whose rewards differ. policy/ratio_mean has their mean over a step.",
  advantage: "No advantage was computed for this trajectory.",
};
let mode = "author";

/** One object a token, in order. */
function tokensOf(told) {
  const tokens = [];
  told.line.segments.forEach((segment, number_) => {
    const policy = segment.author === "policy";
    (segment.ids ?? []).forEach((id, at) => {
      const logprob = segment.logprobs?.[at] ?? null;
      const learner = segment.learner_logprobs?.[at] ?? null;
      tokens.push({ id, policy, segment: number_, text: segment.pieces?.[at] ?? `⟨${id}⟩`, logprob,
        entropy: segment.entropies?.[at] ?? null, advantage: policy ? told.advantage : null,
        ratio: logprob === null || learner === null ? null : Math.exp(learner - logprob) });
    });
  });
  return tokens;
}

/** The class of a token in a mode: a word for its author, or a level of a scale. */
function shade(token, by) {
  if (by === "author") return token.policy ? "policy" : "environment";
  if (by === "mask") return token.policy ? "trained" : "masked";
  const value = token[by];
  if (!token.policy || value === null) return "plain";
  const level = (share) => Math.max(0, Math.min(LEVELS, Math.round(LEVELS * share)));
  if (by === "logprob") return `heat h${level(1 - Math.exp(value))}`;
  if (by === "entropy") return `heat h${level(value / 3)}`;
  const signedShare = by === "ratio" ? Math.log2(value) * 2 : value / 2;
  return `${signedShare < 0 ? "minus" : "plus"} h${level(Math.abs(signedShare))}`;
}

const LEGENDS = { author: "blue: the policy wrote it; grey: the environment did", mask: "green: trained on; grey: masked",
  logprob: "the darker, the less likely it was sampled", entropy: "the darker, the more open the choice; full at 3 nats",
  advantage: "green: made more likely; red: less; the same for all tokens of a trajectory",
  ratio: "green: the trainer finds it likelier than the engine did; red: less likely; full at a factor of √2" };

export function tokenView(told) {
  const tokens = tokensOf(told);
  const whole = told.line.segments.reduce((sum, segment) => sum + segment.count, 0);
  const about = h("div", { class: "about", role: "status", "aria-live": "polite" });
  const note = h("p", { class: "legend-text" });
  const text = h("div", { class: "tokens", tabIndex: 0, role: "application",
    "aria-label": "Tokens; the arrow keys go from one to the next" });
  const blocks = cut(tokens).map(([from, to]) => h("div", { class: "token-block", "data-from": from, "data-to": to }));
  const fill = (block) => {
    const [from, to] = [Number(block.dataset.from), Number(block.dataset.to)];
    block.replaceChildren(...tokens.slice(from, to).map((token, at) => piece(token, from + at)));
  };
  // What comes near is filled a little a frame, so that scrolling never waits for it.
  const waiting = new Set();
  const work = (since) => {
    for (const block of waiting) {
      waiting.delete(block);
      fill(block);
      if (performance.now() - since > FRAME_MS) break;
    }
    if (waiting.size) requestAnimationFrame(work);
  };
  const seen = new IntersectionObserver((entries) => {
    const idle = waiting.size === 0;
    for (const { target, isIntersecting } of entries) if (isIntersecting && target.dataset.mode !== mode) {
      target.dataset.mode = mode;
      waiting.add(target);
    }
    if (idle && waiting.size) work(performance.now());
  }, { rootMargin: "1000px" });
  const choose = (name) => {
    mode = name;
    buttons.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.mode === name)));
    const known = name === "author" || name === "mask" || tokens.some((token) => token[name] !== null);
    note.textContent = known ? LEGENDS[name] : MISSING[name];
    note.className = known ? "legend-text" : "legend-text missing";
    blocks.forEach((block) => { seen.unobserve(block); seen.observe(block); });
  };
  const buttons = MODES.map(([name, label]) => button(label, () => choose(name), { "data-mode": name,
    "aria-pressed": "false" }));
  append(text, blocks);
  reading(text, tokens, about);
  choose(mode);
  const lacks = [told.line.tokenizer ? null : "The run keeps no tokenizer, so tokens may be shown as ids.",
    tokens.length < whole ? `The first ${tokens.length.toLocaleString("en")} of ${whole.toLocaleString("en")} tokens.`
      : null, told.line.segments.some((segment) => segment.from_text) ? "The engine gave text; ids are this side's reading."
      : null].filter(Boolean);
  return h("div", { class: "token-view" }, h("div", { class: "tools", role: "group", "aria-label": "Colour by" },
    buttons), note, lacks.map((each) => h("p", { class: "soft" }, each)), text, about);
}

function piece(token, at) {
  const shown = token.text === "" ? "∅" : visible(token.text).replaceAll("\n", "⏎\n");
  return h("span", { class: `token ${shade(token, mode)}`, "data-at": at }, shown);
}

/** Cuts of the tokens into blocks, after a new line where there is one near. */
function cut(tokens) {
  const cuts = [];
  let from = 0;
  for (let at = 0; at < tokens.length; at++) {
    const size = at + 1 - from;
    if (size >= 2 * BLOCK || (size >= BLOCK && tokens[at].text.includes("\n"))) {
      cuts.push([from, at + 1]);
      from = at + 1;
    }
  }
  if (from < tokens.length) cuts.push([from, tokens.length]);
  return cuts;
}

/** Tells of the token under the pointer or the keys. */
function reading(text, tokens, about) {
  let chosen = -1;
  const tell = (at) => {
    text.querySelector(".token.chosen")?.classList.remove("chosen");
    chosen = Math.max(0, Math.min(tokens.length - 1, at));
    const token = tokens[chosen];
    const node = text.querySelector(`[data-at="${chosen}"]`);
    node?.classList.add("chosen");
    const facts = [["token", JSON.stringify(token.text)], ["id", token.id], ["place", chosen], ["author",
      token.policy ? "policy, trained on" : "environment, masked"], ["logprob", token.logprob === null ? null
      : `${number(token.logprob, 4)} nats, p ${number(Math.exp(token.logprob), 4)}`], ["entropy", token.entropy === null
      ? null : `${number(token.entropy, 4)} nats`], ["ratio", token.ratio === null ? null : number(token.ratio, 4)],
    ["advantage", token.advantage === null ? null : signed(token.advantage)]];
    about.replaceChildren(...facts.filter(([, value]) => value !== null).map(([name, value]) => h("span", {},
      h("b", {}, name), " ", String(value))));
    return node;
  };
  text.addEventListener("pointerover", (event) => {
    if (event.target.dataset.at !== undefined) tell(Number(event.target.dataset.at));
  });
  text.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, PageDown: 50, PageUp: -50 }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    tell(chosen + by)?.scrollIntoView({ block: "nearest" });
  });
}
