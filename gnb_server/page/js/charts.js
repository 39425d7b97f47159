// uPlot charts in the page's colours that follow their place's size.

import { colour, drawMark } from "./appearance.js";
import { element } from "./dom.js";
import { fixed } from "./format.js";
import { fontOf, spread, widest } from "./labels.js";

const FONT = 11;
const LEAST_S = 30; // of time that a chart shows
const LEVELS = 3; // of texts above a chart that say what happened
const LINE = 1.2 * FONT; // from one of them to the next
const MOST_LABEL = 200; // CSS pixels beside a chart
const MOST_SHARE = 0.28; // of a chart's width for names; on a phone the table below has them

/** An axis in the page's colours; `format(value, step)` is its text, `step` from one value to the next. */
export function axis(format, size, more = {}) {
  const values = (_, splits, axisIndex, space, step) =>
    splits.map((value) => (value === null ? "" : format(value, step)));
  return {
    stroke: colour("quiet"),
    font: fontOf(FONT),
    grid: { stroke: colour("grid"), width: 1 },
    ticks: { show: false },
    size,
    gap: 6,
    ...(format && { values }),
    ...more,
  };
}

/** What an axis has below its values. */
export const titled = (label) => ({ label, labelSize: 18, labelGap: 0, labelFont: fontOf(FONT) });

/** As many decimals as it takes to write the step from one value of an axis to the next. */
export function stepped(value, step) {
  const digits = [0, 1, 2, 3, 4].find((each) => Math.abs(step * 10 ** each - Math.round(step * 10 ** each)) < 1e-6);
  return fixed(value, digits ?? 5);
}

/** Whole powers of ten from below to above what is drawn, and one line for each. */
export const decades = (_, low, high) =>
  low ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)] : [1, 100];
const POWERS = {
  splits: (_, axisIndex, low, high) => {
    const [first, last] = [low, high].map((value) => Math.round(Math.log10(value)));
    return Array.from({ length: last - first + 1 }, (_, power) => 10 ** (first + power));
  },
};

/** From 0 to above what is drawn. */
export const fromZero = (_, low, high) => [0, Math.max(1, 1.08 * (high ?? 0))];

/** Room above and below what is drawn: a share of it, and at least `least`. */
export const roomy = (least) => (_, low, high) => {
  if (low === null || low === undefined) return [null, null];
  const room = Math.max(0.08 * (high - low), least);
  return [low - room, high + room];
};

/** Calls `resize(width, height)` whenever a place has another size. */
export function followSize(host, resize) {
  new ResizeObserver(() => {
    if (host.clientWidth && host.clientHeight) resize(host.clientWidth, host.clientHeight);
  }).observe(host);
}

/** A chart of lines over numbers that has nothing but its axes; `draw(plot)` adds to it. */
export function plainPlot(host, data, { range, axes, lines, draw }) {
  const options = {
    width: host.clientWidth,
    height: host.clientHeight,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false }, y: { range } },
    axes,
    series: [{}, ...lines.map((line) => ({ ...line, points: { show: false } }))],
    hooks: draw ? { draw: [draw] } : {},
  };
  return new uPlot(options, data, host);
}

/** A little panel that follows the pointer over a chart. */
export class Tip {
  constructor(host) {
    this.panel = element("div", { class: "tip", hidden: true });
    host.append(this.panel);
    this.host = host;
  }

  /** Show lines [[name, value, colour]] under a title at (x, y) of the place; without lines, hide. */
  show(title, lines, x, y) {
    this.panel.hidden = !lines.length;
    if (!lines.length) return;
    const rows = lines.map(([name, value, of]) => {
      const label = element("span", { text: name });
      if (of) label.style.color = of;
      return element("p", {}, label, element("span", { text: value }));
    });
    this.panel.replaceChildren(...(title ? [element("p", { class: "quiet", text: title })] : []), ...rows);
    const { clientWidth, clientHeight } = this.host;
    const { offsetWidth, offsetHeight } = this.panel;
    this.panel.style.left = `${x + 14 + offsetWidth > clientWidth ? Math.max(0, x - 14 - offsetWidth) : x + 14}px`;
    this.panel.style.top = `${Math.max(0, Math.min(y + 10, clientHeight - offsetHeight))}px`;
  }
}

/** The last value of a line, null in a gap; where lines have times of their own, values are undefined at others'. */
const lastSaid = (values) => values.findLast((value) => value !== undefined);

/** Lines over time with their names at their right ends. */
export class TimeChart {
  /** `format(value)`: for the tip; `range`: of the values, as uPlot has it; `log`: a logarithmic scale. */
  constructor(host, { format, range, log = false, clock }) {
    Object.assign(this, { host, format, range, log, clock, lines: [], marks: [], built: "" });
    this.tip = new Tip(host);
    this.legend = element("p", { class: "legend", hidden: true }); // where there is no room for names beside the lines
    host.after(this.legend);
    followSize(host, (width, height) => {
      this.plot?.setSize({ width, height });
      this.built = ""; // names may have room now
    });
  }

  /**
   * Draw `lines` [{key, name, look, read}] of a ring, with `marks` [{time, text}] of what happened; of the last `span`
   * seconds.
   */
  draw(ring, lines, marks = [], span = Infinity) {
    const newest = ring.ticks.at(-1)?.time ?? 0;
    const data = ring.columns(
      lines.map((line) => line.read),
      newest - span,
    );
    const [times] = data;
    Object.assign(this, { lines, marks: marks.filter(({ time }) => time >= times[0]) });
    if (times.length) this.host.setAttribute("aria-description", `${this.clock(times[0])} to ${this.clock(newest)}`);
    const shown = lines.map(({ key, name, look }) => [key, name, look]);
    const wanted = JSON.stringify([shown, colour("text"), this.marks.length > 0]);
    if (wanted !== this.built || !this.plot) this.#build(data, wanted);
    else this.plot.setData(data);
  }

  /** Emphasise one line, or (null) none. */
  focus(key) {
    const index = this.lines.findIndex((line) => line.key === key);
    this.plot?.setSeries(index < 0 ? null : index + 1, { focus: true });
  }

  #build(data, wanted) {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return; // not to be seen now
    this.plot?.destroy();
    this.built = wanted;
    const longest = Math.min(
      MOST_LABEL,
      widest(
        this.lines.map((line) => line.name),
        fontOf(FONT),
      ) + 12,
    );
    const named = longest < MOST_SHARE * width;
    this.legend.hidden = named || !this.lines.length;
    this.legend.replaceChildren(
      ...this.lines.map(({ name, look }) => {
        const mark = element("canvas", { class: "mark", "aria-hidden": "true" });
        drawMark(mark, look);
        return element("span", {}, mark, ` ${name}`);
      }),
    );
    const options = {
      width,
      height,
      padding: [10 + (this.marks.length ? LEVELS * LINE : 0), named ? longest : 8, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 7 }, y: false },
      focus: { alpha: 0.25 },
      scales: {
        x: { time: true, range: (_, low, high) => [Math.min(low ?? 0, (high ?? LEAST_S) - LEAST_S), high ?? LEAST_S] },
        y: { distr: this.log ? 3 : 1, range: this.range },
      },
      axes: [
        axis((time) => this.clock(time), 24, { space: 80 }),
        this.log ? axis(this.format, 52, POWERS) : axis(stepped, 52),
      ],
      series: [
        {},
        ...this.lines.map(({ name, look }) => ({
          label: name,
          stroke: look.colour,
          width: 1.75,
          dash: look.dash,
          points: { show: false },
        })),
      ],
      hooks: { draw: [(plot) => this.#annotate(plot, named)], setCursor: [(plot) => this.#point(plot)] },
    };
    this.plot = new uPlot(options, data, this.host);
  }

  #annotate(plot, named) {
    const { ctx: context, bbox } = plot;
    const ratio = uPlot.pxRatio;
    context.save();
    context.font = fontOf(FONT, ratio);
    context.textBaseline = "middle";
    context.textAlign = "left";
    this.#drawMarks(plot, context, bbox, ratio);
    if (named) {
      const ends = this.lines
        .map((line, index) => ({ ...line, end: lastSaid(plot.data[index + 1]) }))
        .filter(({ end }) => end !== null && end !== undefined);
      const gap = FONT * 1.2 * ratio;
      const wanted = ends.map((line) => plot.valToPos(line.end, "y", true));
      const placed = spread(wanted, gap, bbox.top, bbox.top + bbox.height);
      ends.forEach((line, index) => {
        context.fillStyle = line.look.colour;
        context.fillText(line.name, bbox.left + bbox.width + 6 * ratio, placed[index], (MOST_LABEL - 8) * ratio);
      });
    }
    context.restore();
  }

  #drawMarks(plot, context, bbox, ratio) {
    const free = Array(LEVELS).fill(-Infinity); // where a text may begin, by level
    context.setLineDash([3 * ratio, 3 * ratio]);
    context.strokeStyle = context.fillStyle = colour("quiet");
    context.lineWidth = ratio;
    for (const { time, text } of this.marks) {
      const x = plot.valToPos(time, "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      const width = context.measureText(text).width;
      const start = Math.min(x + 4 * ratio, bbox.left + bbox.width - width);
      const level = free.findIndex((from) => start >= from);
      const top = bbox.top - (level < 0 ? 0 : (LEVELS - level) * LINE * ratio);
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, bbox.top + bbox.height);
      context.stroke();
      if (level < 0) continue;
      context.clearRect(start, top, width, LINE * ratio); // lines of other marks end there
      context.fillText(text, start, top + 6 * ratio);
      free[level] = start + width + 8 * ratio;
    }
  }

  #point(plot) {
    const { idx: index, left, top } = plot.cursor;
    if (index === null || index === undefined || left < 0) return this.tip.show("", [], 0, 0);
    const values = this.lines
      .map((line, of) => ({ ...line, value: lastSaid(plot.data[of + 1].slice(0, index + 1)) }))
      .filter(({ value }) => value !== null && value !== undefined)
      .sort((a, b) => b.value - a.value);
    const lines = values.map(({ name, value, look }) => [name, this.format(value), look.colour]);
    return this.tip.show(this.clock(plot.data[0][index]), lines, left + plot.bbox.left / uPlot.pxRatio, top);
  }
}
