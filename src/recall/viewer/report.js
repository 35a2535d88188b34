// Adds to a page that reads without it: values under the pointer, smoothing, filters, the token view.
// Text from models enters the page through textContent only.
import { tokenView } from "./tokens.js";

document.documentElement.classList.add("has-script");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

function format(value, unit) {
  if (unit === "percent" || unit === "share") return (100 * value).toFixed(1) + "%";
  const text = Math.abs(value) >= 10000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  return unit === "seconds" ? text + " s" : text;
}

function smooth(points, weight) {
  let mean = 0, total = 0;
  return points.map(([x, y]) => {
    mean = weight * mean + (1 - weight) * y;
    total = weight * total + (1 - weight);
    return [x, mean / total];
  });
}

// Charts -----------------------------------------------------------------------------------------------------------
const slider = document.querySelector(".smoothing input");

function chart(svg) {
  const spec = JSON.parse(svg.dataset.spec);
  const [left, right, top, bottom] = spec.frame;
  const toX = (x) => left + ((x - spec.x[0]) / (spec.x[1] - spec.x[0])) * (right - left);
  const toY = (y) => bottom - ((y - spec.y[0]) / (spec.y[1] - spec.y[0])) * (bottom - top);
  const cursor = svg.querySelector(".cursor");
  const figure = svg.closest("figure");
  let readout = null;
  let shown = spec.series.map((series) => series.p);

  function redraw() {
    if (!spec.smoothed) return;
    shown = spec.series.map((series) => smooth(series.p, Number(slider.value)));
    all(".smooth", svg).forEach((path, i) => {
      path.setAttribute("d", "M" + shown[i].map(([x, y]) => toX(x).toFixed(1) + " " + toY(y).toFixed(1)).join("L"));
    });
  }
  function hide() {
    cursor.style.visibility = "hidden";
    if (readout) readout.remove();
    readout = null;
  }
  function show(event) {
    const box = svg.getBoundingClientRect();
    const width = svg.viewBox.baseVal.width;
    const at = spec.x[0] + (((event.clientX - box.left) / box.width) * width - left) / (right - left) * (spec.x[1] - spec.x[0]);
    const nearest = (points) => points.reduce((best, p) => (Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best), points[0]);
    const x = nearest(spec.series.flatMap((series) => series.p))[0];
    cursor.setAttribute("x1", toX(x));
    cursor.setAttribute("x2", toX(x));
    cursor.style.visibility = "visible";
    if (!readout) readout = figure.appendChild(make("div", "readout"));
    readout.replaceChildren(make("b", "", "step " + Math.round(x)));
    spec.series.forEach((series, i) => {
      const raw = series.p.findIndex((p) => p[0] === x);
      if (raw < 0) return;
      const row = make("div", "c" + series.c);
      row.append(make("i"), series.name + "  " + format(series.p[raw][1], spec.unit));
      if (spec.smoothed && Number(slider.value) > 0) row.append("  (smooth " + format(shown[i][raw][1], spec.unit) + ")");
      readout.append(row);
    });
    const frame = figure.getBoundingClientRect();
    const px = box.left - frame.left + (toX(x) / width) * box.width;
    const room = readout.offsetWidth + 12;
    readout.style.left = Math.max(4, px + room > frame.width ? px - room : px + 12) + "px";
    readout.style.top = box.top - frame.top + 6 + "px";
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
  return redraw;
}
const redraws = all("svg[data-spec]").map(chart);
if (slider) slider.addEventListener("input", () => redraws.forEach((redraw) => redraw()));

// Filters ----------------------------------------------------------------------------------------------------------
const form = document.querySelector(".filters");

function filter() {
  const want = Object.fromEntries(new FormData(form));
  let any = false;
  for (const group of all(".group")) {
    for (const one of all(".traj", group)) one.hidden = Boolean(want.verdict) && one.dataset.verdict !== want.verdict;
    const fits = (!want.split || group.dataset.split === want.split) && (!want.kind || group.dataset.kind === want.kind);
    group.hidden = !fits || all(".traj", group).every((one) => one.hidden);
    any = any || !group.hidden;
  }
  for (const batch of all(".batch")) batch.hidden = all(".group", batch).every((group) => group.hidden);
  document.querySelector(".empty").hidden = any;
}
if (form) {
  form.addEventListener("change", filter);
  form.addEventListener("click", (event) => {
    const wish = event.target.dataset.all;
    if (wish) for (const group of all(".group")) group.open = wish === "open";
  });
}

// Tokens -----------------------------------------------------------------------------------------------------------
const data = JSON.parse(document.getElementById("data").textContent);

for (const button of all("[data-tokens]")) {
  button.addEventListener("click", () => {
    const article = button.closest(".traj");
    const place = article.querySelector(".token-place");
    const show = place.hidden;
    if (!place.firstChild) {
      const { prompt, advantage, segments } = data.trajectories[button.dataset.tokens];
      place.append(tokenView({ advantage, line: { tokenizer: data.tokenizer, segments: [...data.prompts[prompt], ...segments] } }));
    }
    place.hidden = !show;
    article.querySelector(".conversation").hidden = show;
    button.setAttribute("aria-pressed", String(show));
  });
}
