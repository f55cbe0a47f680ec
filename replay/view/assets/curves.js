/* Curves: setpoints and measurements of one group and unit, drawn by uPlot on the time axis of all. */

const PANEL_HEIGHT = 84;
const STYLES = {
  setpoint: { dash: [6, 4], width: 2, border: 'dashed' },
  asked: { dash: [], width: 1.25, border: 'solid' },
  output: { dash: [], width: 2.25, border: 'solid' },
  imd: { dash: [2, 3], width: 1.75, border: 'dotted' },
  ovm: { dash: [8, 3, 2, 3], width: 1.5, border: 'dashed' },
};
const BY_PHASE = { a: 'asked', b: 'setpoint', c: 'imd' };

function styleName(key) {
  return key.startsWith('ac_input') ? BY_PHASE[key.slice(-1)] : key.split('_')[0];
}

/* The part of a curve that is in view, thinned to a few points per pixel with no peak lost. */
function inView({ at, values }, from, to, buckets) {
  const first = Math.max(0, lastAtOrBefore(at, from));
  const last = lastAtOrBefore(at, to);
  const [xs, ys] = [[], []];
  const push = (index) => {
    const x = Math.max(at[index], from);
    if (xs.length && xs[xs.length - 1] === x) ys[ys.length - 1] = values[index];
    else { xs.push(x); ys.push(values[index]); }
  };
  if (last - first < buckets * 4) {
    for (let index = first; index <= last; index += 1) push(index);
  } else {
    const width = (to - from) / buckets;
    let index = first;
    while (index <= last) {
      const end = from + (Math.floor((Math.max(at[index], from) - from) / width) + 1) * width;
      let [low, high, final] = [index, index, index];
      let broken = -1;
      const begin = index;
      for (; index <= last && at[index] < end; index += 1) {
        if (values[index] === null) broken = index;
        else {
          if (values[low] === null || values[index] < values[low]) low = index;
          if (values[high] === null || values[index] > values[high]) high = index;
        }
        final = index;
      }
      if (index === begin) index += 1;
      [...new Set([begin, low, high, broken, final])].filter((one) => one >= 0).sort((a, b) => a - b).forEach(push);
    }
  }
  const hold = Math.min(to, Facts.endUs);
  if (last >= 0 && hold > xs[xs.length - 1]) { xs.push(hold); ys.push(values[last]); }
  return [xs, ys];
}

/* A curve's path: a value holds up to the curve's next point, and nothing is drawn after a null. (uPlot's own steps
   rise faintly out of the value before a gap. What is undefined belongs to another curve.) */
function steps(chart, series, first, last) {
  const [xs, ys] = [chart.data[0], chart.data[series]];
  const path = new Path2D();
  let held = null;
  for (let index = first; index <= last; index += 1) {
    if (ys[index] === undefined) continue;
    const x = chart.valToPos(xs[index], 'x', true);
    const y = ys[index] === null ? null : chart.valToPos(ys[index], 'y', true);
    if (held !== null) path.lineTo(x, held);
    if (y !== null) path[held === null ? 'moveTo' : 'lineTo'](x, y);
    held = y;
  }
  return { stroke: path, fill: null, clip: null, flags: 0 };
}

const valueAt = (curve, us) => {
  const index = lastAtOrBefore(curve.at, us);
  return index < 0 || us > Facts.endUs ? null : curve.values[index];
};

class Panel {
  constructor(name, curves, gaps) {
    this.curves = curves;
    this.drawn = curves.toReversed(); // the setpoint, dashed, over what follows it
    this.gaps = gaps;
    const all = curves.flatMap((curve) => curve.values.filter((value) => value !== null));
    const high = all.reduce((most, value) => Math.max(most, value), 0);
    const low = all.reduce((least, value) => Math.min(least, value), 0);
    this.range = [low && low * 1.1, (high || 1) * 1.1];
    this.element = element('div', 'panel');
    this.element.append(element('div', 'name', `${name[0].toUpperCase()}${name.slice(1)}, ${curves[0].unit}`));
    this.legend = element('div', 'legend');
    this.values = curves.map((curve) => this.addLegend(curve));
    this.plot = element('div');
    this.element.append(this.legend, this.plot);
    this.chart = null;
  }

  addLegend(curve) {
    const entry = element('span');
    const line = element('i');
    const style = styleName(curve.key);
    line.style.borderTopStyle = STYLES[style].border;
    line.style.borderTopWidth = `${Math.round(STYLES[style].width)}px`;
    line.style.color = `var(--${style})`;
    const value = element('b', '', '–');
    entry.append(line, curve.name, value);
    this.legend.append(entry);
    return value;
  }

  showValues(us) {
    this.curves.forEach((curve, index) => {
      const value = valueAt(curve, us);
      this.values[index].textContent = value === null ? '–' : `${Number(value.toFixed(2))} ${curve.unit}`;
    });
  }

  build() {
    const { colours } = Theme;
    const grid = { stroke: colours.grid, width: 1 };
    this.chart?.destroy();
    this.chart = new uPlot({
      width: View.width,
      height: PANEL_HEIGHT,
      padding: [6, View.right, 6, 0],
      pxAlign: 0,
      cursor: { show: false },
      legend: { show: false },
      scales: { x: { time: false, range: () => [View.from, View.to] }, y: { range: () => this.range } },
      axes: [
        { size: 0, gap: 0, ticks: { show: false }, grid, splits: () => View.ticks.map(({ us }) => us), values: (_, all) => all.map(() => '') },
        { size: View.gutter, gap: 4, space: 22, stroke: colours.soft, font: `11px ${getComputedStyle(document.body).fontFamily}`, grid, ticks: { stroke: colours.line, size: 4, width: 1 } },
      ],
      series: [{}, ...this.drawn.map((curve) => {
        const name = styleName(curve.key);
        return {
          stroke: colours[name], width: STYLES[name].width, dash: STYLES[name].dash,
          paths: steps, points: { show: false },
        };
      })],
      hooks: { drawClear: [(chart) => this.drawGaps(chart)] },
    }, this.data(), this.plot);
  }

  drawGaps({ ctx, bbox }) {
    drawGaps(ctx, this.gaps, bbox.left, bbox.top, bbox.width, bbox.height, devicePixelRatio || 1);
  }

  data() {
    const buckets = Math.ceil(View.plotWidth / 2);
    const withNulls = this.drawn.map(() => [0, 1]);
    return uPlot.join(this.drawn.map((curve) => inView(curve, View.from, View.to, buckets)), withNulls);
  }

  draw() {
    if (!this.chart) { this.build(); return; }
    if (this.chart.width !== View.width) this.chart.setSize({ width: View.width, height: PANEL_HEIGHT });
    this.chart.setData(this.data());
  }

  forget() {
    this.chart?.destroy();
    this.chart = null;
  }
}
