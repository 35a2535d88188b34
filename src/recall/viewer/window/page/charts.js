// Curves, drawn by uPlot. A chart is a figure with its name, its last values, and the drawing.
import { h, visible } from "./dom.js";
import { number, smooth } from "./format.js";

export const COLOURS = 8;
const HEIGHT = 190;

function colour(place) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--c${place % COLOURS}`).trim();
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * A chart.
 * @param title what stands above it
 * @param steps [n] of the horizontal axis
 * @param curves [{ name, values: [n], colour, low?: [n], high?: [n] }]; low and high make a band
 * @param options { smoothing: 0..1 }
 */
export function chart(title, steps, curves, options = {}) {
  const legend = h("ul", { class: "legend" }, curves.map((curve, place) => h("li", {},
    h("i", { class: `key c${(curve.colour ?? place) % COLOURS}` }), curve.name, " ",
    h("b", {}, number(lastOf(curve.values))))));
  const plot = h("div", { class: "plot" });
  const said = curves.map((curve) => `${curve.name} ${number(lastOf(curve.values))}`).join(", ");
  const figure = h("figure", { class: "chart", role: "group", "aria-label": `${title}: last ${said}` },
    h("figcaption", {}, title), plot, curves.length > 1 || options.legend ? legend
      : h("p", { class: "last" }, "last ", h("b", {}, number(lastOf(curves[0]?.values ?? [])))));
  let drawn = null;
  const draw = () => {
    if (!plot.clientWidth) return;
    drawn?.destroy();
    drawn = drawing(plot, steps, curves, options.smoothing ?? 0);
  };
  // Drawn when it comes into sight: a run may have a hundred metrics.
  const seen = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); draw(); }
  }, { rootMargin: "300px" });
  seen.observe(figure);
  new ResizeObserver(() => drawn && drawn.width !== plot.clientWidth && drawn.setSize(
    { width: plot.clientWidth, height: HEIGHT })).observe(plot);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn && draw());
  return figure;
}

function drawing(plot, steps, curves, smoothing) {
  const data = [steps];
  const series = [{ label: "step" }];
  const bands = [];
  curves.forEach((curve, place) => {
    const stroke = colour(curve.colour ?? place);
    if (curve.low) {
      bands.push({ series: [data.length, data.length + 1], fill: stroke + "30" });
      data.push(smooth(curve.high, smoothing), smooth(curve.low, smoothing));
      series.push({ label: visible(`${curve.name} most`), width: 0, points: { show: false }, spanGaps: true });
      series.push({ label: visible(`${curve.name} least`), width: 0, points: { show: false }, spanGaps: true });
    } else if (smoothing > 0) {
      data.push(curve.values);
      series.push({ label: visible(`${curve.name} as measured`), stroke: stroke + "38", width: 1, spanGaps: true,
        points: { show: false } });
    }
    data.push(smooth(curve.values, smoothing));
    const few = curve.values.filter((value) => value !== null).length <= 40;
    series.push({ label: visible(curve.name), stroke, width: 1.8, spanGaps: true,
      points: { show: few, size: 4, fill: stroke } });
  });
  const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false },
    font: "11px system-ui, sans-serif" };
  const options = { width: plot.clientWidth, height: HEIGHT, series, bands, legend: { show: false },
    scales: { x: { time: false }, y: { range: spanned } }, cursor: { points: { size: 7 }, drag: { x: true, y: false } },
    axes: [{ ...axis, size: 26 }, { ...axis, size: 54, values: (_, ticks) => ticks.map((tick) => number(tick, 2)) }],
    hooks: { setCursor: [(self) => readout(plot, self, steps, curves)] } };
  return new uPlot(options, data, plot);
}

/** The vertical span: a little more than the values', and never none. */
function spanned(_, low, high) {
  if (low === null) return [0, 1];
  const room = 0.06 * (high - low) || Math.abs(high) * 0.2 || 0.5;
  return [low >= 0 && low < room * 4 ? Math.min(0, low) : low - room, high + room];
}

function readout(plot, self, steps, curves) {
  const at = self.cursor.idx;
  let box = plot.querySelector(".readout");
  if (at === null || at === undefined) { box?.remove(); return; }
  if (!box) { box = h("div", { class: "readout" }); plot.append(box); }
  const values = curves.filter((curve) => curve.values[at] !== null && curve.values[at] !== undefined);
  box.textContent = visible(`step ${steps[at]}  ` + values.slice(0, 8).map((curve) =>
    (curves.length > 1 ? `${curve.name} ` : "") + number(curve.values[at])).join("  "));
}

export function lastOf(values) {
  for (let at = values.length - 1; at >= 0; at--) if (values[at] !== null && values[at] !== undefined) return values[at];
  return null;
}

/** A little curve without axes, for a table. */
export function spark(values) {
  if (values.length < 2) return h("span", { class: "spark" });
  const low = Math.min(...values);
  const high = Math.max(...values);
  const points = values.map((value, at) =>
    `${((at / (values.length - 1)) * 100).toFixed(1)},${(22 - ((value - low) / (high - low || 1)) * 20).toFixed(1)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `mean reward, from ${number(values[0])} to ${number(values.at(-1))}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

/** A control of smoothing that calls back with a weight. */
export function smoothing(weight, changed) {
  return h("label", { class: "smoothing" }, "Smoothing ", h("input", { type: "range", min: 0, max: 0.98, step: 0.02,
    value: weight, onchange: (event) => changed(Number(event.target.value)) }));
}
