// Numbers as people read them: a true minus sign, thin spaces between thousands, a dash where there is none.

export const NONE = "–";

export function fixed(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

export function count(value) {
  if (value === null || value === undefined) return NONE;
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** A value of any size in three digits or so: 0.42, 6.1, 83, 12 300. */
export function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value >= 100 || value === 0) return count(value);
  return fixed(value, value >= 10 ? 0 : value >= 1 ? 1 : 2);
}

/** `± error`, or nothing where there is none. */
export const plusMinus = (error, digits) => ((error ?? null) === null ? "" : ` ± ${fixed(error, digits)}`);

const STEPS = [
  ["G", 1e9],
  ["M", 1e6],
  ["k", 1e3],
];

/** Value and unit with a prefix: [“12.4”, “kbit/s”]. */
export function scaled(value, unit) {
  const [prefix, step] = STEPS.find(([, step]) => value >= step) ?? ["", 1];
  return [brief(value / step), prefix + unit];
}

const two = (value) => String(value).padStart(2, "0");

/** Time of day of seconds since 1970. */
export function clock(seconds) {
  const time = new Date(seconds * 1000);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function since(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
