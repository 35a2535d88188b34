// Elements from data. Text of models and tools only ever becomes text nodes, with what is hidden in it written out.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const PROPERTIES = new Set(["hidden", "disabled", "checked", "open", "value", "selected", "tabIndex"]);

/** `text` with control characters, bidirectional marks and lone surrogates as something that can be seen. */
export function visible(text) {
  return String(text).replaceAll("\r\n", "\n").replace(HIDDEN, (found) => {
    const code = found.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : "\\u" + code.toString(16).padStart(4, "0");
  });
}

/** An element: properties, `on…` listeners and attributes, then children: nodes, texts, lists, or nothing. */
export function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : visible(value));
  }
  append(node, children);
  return node;
}

export function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** A link to a view. */
export function link(view, parameters, text, properties) {
  return h("a", { href: address(view, parameters), ...properties }, text);
}

/** The address of a view: its name, then its parameters. */
export function address(view, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") query.append(name, each);
    }
  }
  const text = query.toString();
  return `#${view}${text ? `?${text}` : ""}`;
}

export function button(text, act, properties) {
  return h("button", { type: "button", onclick: act, ...properties }, text);
}

/** Copies a text and says so on the button that asked. */
export async function copy(source, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { value: text, class: "away" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = source.textContent;
  source.textContent = "Copied";
  setTimeout(() => { source.textContent = before; }, 1200);
}

const MARKED = /(<think>[\s\S]*?(?:<\/think>|$))|(<tool_call>[\s\S]*?(?:<\/tool_call>|$))|(\\boxed\{[^{}]*\})|(<\|[^|<>]*\|>)/g;
const NAMES = ["think", "called", "boxed", "control"];

/** A text with thinking, calls, the boxed answer and control tokens set apart; only how it looks depends on this. */
export function marked(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(MARKED)) {
    parts.push(text.slice(at, found.index));
    const place = found.slice(1).findIndex((part) => part !== undefined);
    parts.push(h("span", { class: NAMES[place] }, found[0]));
    at = found.index + found[0].length;
  }
  return [...parts, text.slice(at)];
}
