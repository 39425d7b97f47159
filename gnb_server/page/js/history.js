// What came before the page was opened, or while it did not hear the gNB: from what the gNB has stored.

import { airWords } from "./air.js";
import { get } from "./api.js";
import { appearance } from "./appearance.js";
import { cellPrefix, keyOf } from "./metrics.js";

const OF_SERIES = { nmse: "nmse_db", sums: "ratio_of_sums_db", sgcs: "sgcs" }; // metric of the page -> of the answer

/**
 * Ticks for a ring, with the figures of a run over a window [s]: of the gNB's own, or of that of `cell`.
 *
 * @param rows of /v1/nmse?by=version: which lines there are. A stored series is of a scheme, version, encoder, preset of
 *   scenarios, and air if that is known; where several rows are of these, it is a line of its own, pooled over them.
 * @return {ticks, pooled}; pooled [{key, scheme, version, air, cell}], which `pooledLine` draws.
 */
export async function storedTicks(window, rows, cell) {
  const asked = new URLSearchParams({ window, ...(cell && { cell }) });
  const { times, series, ...rates } = await get(`v1/history?${asked}`);
  const keys = series.map((one) => keyFor({ ...one, cell }, rows));
  const ticks = times.map((time, at) => ({
    time,
    rows: Object.fromEntries(series.map((one, which) => [keys[which], figuresAt(one, at)])),
    overall: { received: rates.reports_per_s[at] + rates.dropped_per_s[at], decoded: rates.reports_per_s[at] },
  }));
  const pooled = series
    .map(({ scheme, version, air }, which) => ({ key: keys[which], scheme, version, air, cell }))
    .filter(({ key }) => key.startsWith(POOLED));
  return { ticks, pooled };
}

/** A line for a chart of a metric. */
export const pooledLine = ({ key, scheme, version, air, cell }, metric) => ({
  key,
  name: cellPrefix({ cell }) + [`${scheme} ${version}`, ...(air ? [airWords(air)] : []), "pooled"].join(", "),
  look: appearance(scheme, version, key),
  read: (tick) => tick.rows[key]?.[metric],
});

const POOLED = "pooled ";

function keyFor({ scheme, version, encoder_id: encoder, preset, air, cell }, rows) {
  const alike = rows.filter(
    (row) =>
      row.scheme === scheme &&
      row.version === version &&
      row.encoder_id === encoder &&
      row.scenario.split(":")[0] === preset &&
      (air === null || (row.air ?? "") === air),
  );
  return alike.length === 1 ? keyOf(alike[0]) : POOLED + [scheme, version, encoder, preset, air, cell].join(" ");
}

const figuresAt = (series, at) =>
  Object.fromEntries(Object.entries(OF_SERIES).map(([name, of]) => [name, series[of][at]]));
