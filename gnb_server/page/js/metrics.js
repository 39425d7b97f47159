// What of a scheme's figures is drawn, and which figures of a tick are kept.

import { airWords } from "./air.js";
import { fixed, plusMinus } from "./format.js";

const lastSlot = (row, name) => row.by_slot?.at(-1)?.[name] ?? null;

export const METRICS = {
  nmse: {
    label: "NMSE, mean of ratios",
    short: "NMSE",
    unit: "dB",
    digits: 2,
    value: (row) => row.nmse_db,
    error: (row) => row.nmse_se_db,
  },
  last: {
    label: "NMSE at t = T",
    short: "NMSE at t = T",
    unit: "dB",
    digits: 2,
    value: (row) => lastSlot(row, "nmse_db"),
    error: (row) => lastSlot(row, "nmse_se_db"),
  },
  sums: {
    label: "NMSE, ratio of sums",
    short: "NMSE (ratio of sums)",
    unit: "dB",
    digits: 2,
    value: (row) => row.ratio_of_sums_db,
    error: (row) => row.ratio_of_sums_se_db,
  },
  sgcs: {
    label: "SGCS",
    short: "SGCS",
    unit: "",
    digits: 3,
    value: (row) => row.sgcs,
    error: (row) => row.sgcs_se,
  },
};

/** A row of /v1/nmse?by=version is of one of these; where it is one of another cell, `cell` says so. */
export const keyOf = (row) =>
  [row.scheme, row.version, row.encoder_id, row.scenario, row.seed, row.air ?? "", row.cell ?? ""].join(" ");

/** Of what else rows differ in, as text. */
const PARTS = {
  air: ({ air }) => airWords(air),
  scenario: ({ scenario }) => scenario,
  seed: ({ seed }) => `seed ${seed}`,
  encoder_id: ({ encoder_id: id }) => `encoder ${id.slice(0, 8)}`,
};

const IN_COMMON = ["cell", "scheme", "version"];

/** “a: ” of a row of cell a, if it says so. */
export const cellPrefix = ({ cell }) => (cell ? `${cell}: ` : "");

/** “hyperrnn 3”, with what else it takes to tell it from the others, and what disturbs its link in any case. */
export function nameOf(row, others) {
  const alike = others.filter((other) => IN_COMMON.every((part) => other[part] === row[part]));
  const parts = Object.entries(PARTS)
    .filter(([part]) => (part === "air" && row.air) || alike.some((other) => other[part] !== row[part]))
    .map(([, text]) => text(row));
  return cellPrefix(row) + [`${row.scheme} ${row.version ?? ""}`.trim(), ...parts].join(", ");
}

/** What of a row is kept for the charts. */
export function keep(row) {
  return Object.fromEntries(Object.entries(METRICS).map(([name, metric]) => [name, metric.value(row)]));
}

/** NMSE with its error, of precoders SGCS: [text, quiet part of it]; `none` where there are no reports. */
export function quality({ nmse_db: db, nmse_se_db: error, sgcs }, none = "") {
  if (db !== null && db !== undefined) return [fixed(db, 2), plusMinus(error, 2)];
  return sgcs === null || sgcs === undefined ? [none] : [fixed(sgcs, 3), " SGCS"];
}

/** Reports per second that came in: decoded, and dropped because they were late. */
export function received(row, window_s) {
  if (!row.dropped) return row.reports_per_s;
  return row.reports ? row.reports_per_s * (1 + row.dropped / row.reports) : row.dropped / window_s;
}
