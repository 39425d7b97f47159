// What the simulated link does to reports, in words.

import { fixed } from "./format.js";

const WORDS = {
  ber: (value) => `bit errors ${percent(value)}`,
  loss: (value) => `${percent(value)} lost`,
  burst: (value) => `bursts of ${Number(value)}`,
  crc: (value) => `CRC ${value}`,
  policy: (value) => ({ blind: "blind step", predict: "prediction" })[value] ?? value,
  state: (value) => value,
  delay: (value) => `${value} ${value === "1" ? "slot" : "slots"} late`,
};

/** {name: text} of `ber=0.001,loss=0.1`. */
export const airFields = (air) => Object.fromEntries(air ? air.split(",").map((part) => part.split("=")) : []);

/** “10 % lost, bursts of 5”; “undisturbed”. */
export function airWords(air) {
  const words = Object.entries(airFields(air)).map(([name, value]) => WORDS[name]?.(value) ?? `${name} ${value}`);
  return words.join(", ") || "undisturbed";
}

/** A share of 1: “0.1 %”, “30 %”. */
export function percent(share) {
  const whole = (digits) => Math.abs(share * 10 ** (2 + digits) - Math.round(share * 10 ** (2 + digits))) < 1e-9;
  const digits = [0, 1, 2, 3].find(whole);
  return `${fixed(100 * share, digits ?? 4)} %`;
}
