// Numbers and times for people.

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : digits);
}

export function signed(value, digits = 3) {
  return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + number(value, digits);
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${value < 0.01 ? number(1000 * value, 2) : Math.round(1000 * value)} ms`;
  if (value < 90) return `${value.toFixed(1)} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export function count(value, noun) {
  return `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
}

export function words(name) {
  return name.replaceAll("_", " ");
}

/** Exponential smoothing; a weight of 0 changes nothing. Gaps stay gaps. */
export function smooth(values, weight) {
  let held = null;
  return values.map((value) => {
    if (value === null || value === undefined) return null;
    held = held === null ? value : weight * held + (1 - weight) * value;
    return held;
  });
}
