// The plane of NMSE (or SGCS) and feedback bits: a point with its errors for each scheme and version.

import { colour, drawShape } from "./appearance.js";
import { axis, followSize, roomy, stepped, Tip, titled } from "./charts.js";
import { count, fixed, plusMinus } from "./format.js";
import { fontOf, spread, widest } from "./labels.js";

const BITS = [0, 1, 4, 16, 64, 256, 1024, 4096, 16384, 65536];
const place = (bits) => Math.log2(1 + bits); // logarithmic, with room for no bits at all
const [ROOM, LEAST_SPAN] = [1, 6]; // powers of two beside the points, and in all
const FONT = 11;
const MARK = 9; // CSS pixels
const NEAR = 24; // CSS pixels from a point to the pointer that is on it
const LONG = 90; // CSS pixels of a name that would reach into those of others
const ERRORS = 2; // standard errors that a bar has to each side

export class Plane {
  constructor(host) {
    this.host = host;
    this.points = [];
    this.tip = new Tip(host);
    followSize(host, (width, height) => this.plot?.setSize({ width, height }));
    host.addEventListener("mousemove", (event) => this.#point(event));
    host.addEventListener("mouseleave", () => this.tip.show("", [], 0, 0));
  }

  /** Draw `points` [{name, look, bits, low, high, value, error}]; `low`, `high`: 5th and 95th percentile of bits. */
  draw(points, metric) {
    this.points = points.filter(({ value }) => value !== null && value !== undefined).sort((a, b) => a.bits - b.bits);
    this.metric = metric;
    const data = [this.points.map(({ bits }) => place(bits)), this.points.map(({ value }) => value)];
    const wanted = JSON.stringify([metric.label, colour("text")]);
    if (!this.plot || wanted !== this.built) this.#build(data, wanted);
    else this.plot.setData(data);
  }

  #build(data, wanted) {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return; // not to be seen now
    this.plot?.destroy();
    this.built = wanted;
    const bounds = () => {
      const ends = this.points.flatMap(({ bits, low, high }) => [bits, low ?? bits, high ?? bits]).map(place);
      if (!ends.length) return [0, 13];
      const [least, most] = [Math.min(...ends), Math.max(...ends)];
      const room = Math.max(ROOM, (LEAST_SPAN - (most - least)) / 2);
      return [Math.max(-ROOM, least - room), most + room];
    };
    const least = this.metric.unit ? 1 : 0.05;
    const options = {
      width,
      height,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, range: bounds },
        y: { range: (plot) => roomy(least)(plot, ...this.#ends()) },
      },
      axes: [
        axis((at) => count(2 ** at - 1), 24, {
          ...titled("feedback bits a report"),
          splits: () => BITS.map(place).filter((at, _, all) => at >= bounds()[0] && at <= bounds()[1] && all.length),
        }),
        axis(stepped, 52),
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(plot) => this.#drawPoints(plot)] },
    };
    this.plot = new uPlot(options, data, this.host);
  }

  #ends() {
    const ends = this.points.flatMap(({ value, error }) => [
      value - ERRORS * (error ?? 0),
      value + ERRORS * (error ?? 0),
    ]);
    return ends.length ? [Math.min(...ends), Math.max(...ends)] : this.metric.unit ? [-20, 0] : [0, 1];
  }

  #drawPoints(plot) {
    const { ctx: context, bbox } = plot;
    const ratio = uPlot.pxRatio;
    const x = (bits) => plot.valToPos(place(bits), "x", true);
    const y = (value) => plot.valToPos(value, "y", true);
    context.save();
    context.lineWidth = 1.5 * ratio;
    for (const { bits, low, high, value, error, look } of this.points) {
      context.strokeStyle = context.fillStyle = look.colour;
      context.beginPath();
      if (error) {
        context.moveTo(x(bits), y(value - ERRORS * error));
        context.lineTo(x(bits), y(value + ERRORS * error));
      }
      if (low !== null && high !== null) {
        context.moveTo(x(low), y(value));
        context.lineTo(x(high), y(value));
      }
      context.stroke();
      drawShape(context, look.shape, x(bits), y(value), MARK * ratio);
      context.fill();
    }
    this.#drawNames(context, bbox, x, y, ratio);
    context.restore();
  }

  /**
   * To the right of a point; where the plane ends to its left, or above it if that would reach far. Names of points of
   * about as many bits are spread.
   */
  #drawNames(context, bbox, x, y, ratio) {
    context.font = fontOf(FONT, ratio);
    context.textBaseline = "middle";
    const offset = (MARK / 2 + 4) * ratio;
    const columns = [];
    for (const point of this.points) {
      const last = columns.at(-1);
      if (last && x(point.bits) - x(last[0].bits) < 70 * ratio) last.push(point);
      else columns.push([point]);
    }
    for (const column of columns) {
      const width = widest(
        column.map(({ name }) => name),
        fontOf(FONT, ratio),
      );
      const right = Math.max(...column.map(({ bits }) => x(bits))) + offset + width <= bbox.left + bbox.width;
      const placed = spread(
        column.map(({ value, low, high }) => y(value) - (low < high ? FONT * ratio : 0)), // above a bar of bits
        FONT * 1.2 * ratio,
        bbox.top + 6 * ratio,
        bbox.top + bbox.height - 6 * ratio,
      );
      context.textAlign = right ? "left" : "right";
      column.forEach(({ name, bits, look }, index) => {
        context.fillStyle = look.colour;
        const above = !right && context.measureText(name).width > LONG * ratio;
        if (above) context.fillText(name, bbox.left + bbox.width, placed[index] - FONT * ratio);
        else context.fillText(name, x(bits) + (right ? offset : -offset), placed[index]);
      });
    }
  }

  #point(event) {
    if (!this.plot) return;
    const box = this.host.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const { bbox } = this.plot;
    const distance = ({ bits, value }) =>
      Math.hypot(
        this.plot.valToPos(place(bits), "x") + bbox.left / uPlot.pxRatio - left,
        this.plot.valToPos(value, "y") + bbox.top / uPlot.pxRatio - top,
      );
    const nearest = this.points.toSorted((a, b) => distance(a) - distance(b))[0];
    if (!nearest || distance(nearest) > NEAR) return this.tip.show("", [], 0, 0);
    const { name, look, bits, low, high, value, error } = nearest;
    const { short, unit, digits } = this.metric;
    const lines = [
      [short, `${fixed(value, digits)}${plusMinus(error, digits)} ${unit}`],
      ["bits", count(bits)],
    ];
    if (low !== null && high !== null) lines.push(["5 % to 95 %", `${count(low)} to ${count(high)}`]);
    return this.tip.show("", [[name, "", look.colour], ...lines], left, top);
  }
}
