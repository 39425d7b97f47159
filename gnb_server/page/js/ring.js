// The last ticks of the stream, as many as fit.

const APART_S = 2; // a tick that is filled in is at least so far from those that there are

export class Ring {
  /**
   * @param length ticks that are kept
   * @param absent value of a line of which a tick says nothing: null is a gap, undefined nothing
   */
  constructor(length, absent) {
    this.length = length;
    this.absent = absent;
    this.ticks = [];
  }

  /** Add a tick: `time` [s since 1970], `overall` and `rows` (key -> values); `null` for a gap. */
  push(tick) {
    this.ticks.push(tick);
    if (this.ticks.length > this.length) this.ticks.shift();
  }

  /** Add ticks, ascending, where there are none; the newest of all stay. */
  fill(ticks) {
    const there = this.ticks.filter(({ overall }) => overall).map(({ time }) => time);
    let next = 0;
    const missing = ticks.filter(({ time }) => {
      while (next < there.length && there[next] < time - APART_S) next += 1;
      return next === there.length || there[next] > time + APART_S;
    });
    this.ticks = [...this.ticks, ...missing].sort((a, b) => a.time - b.time).slice(-this.length);
  }

  /** [times, a column for each of `readers`], as uPlot takes them, of ticks that are later than `since`. */
  columns(readers, since = -Infinity) {
    const ticks = this.ticks.filter(({ time }) => time > since);
    const value = (read, tick) => {
      const found = read(tick);
      return found === undefined ? this.absent : found;
    };
    return [ticks.map(({ time }) => time), ...readers.map((read) => ticks.map((tick) => value(read, tick)))];
  }
}
