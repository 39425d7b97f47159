// The last ticks of the stream, as many as fit.

export class Ring {
  /** @param length ticks that are kept */
  constructor(length) {
    this.length = length;
    this.ticks = [];
  }

  /** Add a tick: `time` [s since 1970], `overall` and `rows` (key -> values); `null` for a gap. */
  push(tick) {
    this.ticks.push(tick);
    if (this.ticks.length > this.length) this.ticks.shift();
  }

  /** [times, a column for each of `readers`], as uPlot takes them. */
  columns(readers) {
    return [
      this.ticks.map((tick) => tick.time),
      ...readers.map((read) => this.ticks.map((tick) => read(tick) ?? null)),
    ];
  }
}
