/* The stretch of time that is shown, and where in it a moment stands. One for all lanes and curves. */

const SHORTEST_US = 100;
const STEPS_US = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6,
  1e7, 1.5e7, 3e7, 6e7, 1.2e8, 3e8, 6e8, 9e8, 1.8e9, 3.6e9, 7.2e9, 1.08e10, 2.16e10, 4.32e10, 8.64e10];

const View = {
  from: 0,
  to: 1,
  gutter: 0,
  right: 0,
  width: 0,
  ticks: [],
  changed: () => {},

  get plotWidth() { return Math.max(10, View.width - View.gutter - View.right); },
  x: (us) => ((us - View.from) / (View.to - View.from)) * View.plotWidth,
  us: (x) => View.from + (x / View.plotWidth) * (View.to - View.from),

  measure() {
    const style = getComputedStyle(document.documentElement);
    View.gutter = parseFloat(style.getPropertyValue('--gutter'));
    View.right = parseFloat(style.getPropertyValue('--right'));
    View.width = $('content').clientWidth;
  },

  /* The whole log, with a little room at both ends. */
  bounds() {
    const room = Facts.endUs * 0.01;
    return [-room, Facts.endUs + room];
  },

  show(from, to) {
    const [first, last] = View.bounds();
    const span = Math.min(Math.max(to - from, SHORTEST_US), last - first);
    View.from = Math.min(Math.max(from, first), last - span);
    View.to = View.from + span;
    View.changed();
  },

  reset() { View.show(...View.bounds()); },
  zoom(factor, us) { View.show(us - (us - View.from) * factor, us + (View.to - us) * factor); },
  pan(us) { View.show(View.from + us, View.to + us); },

  /* Bring a moment into view, if it is out of it. */
  reveal(us) {
    const span = View.to - View.from;
    if (us < View.from || us > View.to) View.show(us - span / 2, us + span / 2);
  },

  updateTicks() {
    const span = View.to - View.from;
    const step = STEPS_US.find((size) => size >= (span * 110) / View.plotWidth) ?? 8.64e10;
    const decimals = step >= 1e6 ? 0 : Math.ceil(6 - Math.log10(step));
    View.ticks = [];
    const first = Math.ceil((Facts.beginUs + View.from) / step) * step - Facts.beginUs;
    for (let us = first; us <= View.to; us += step) {
      const isMidnight = (Facts.beginUs + us) % DAY_US === 0;
      View.ticks.push({ us, text: isMidnight ? dateText(us).slice(5) : timeText(us, decimals) });
    }
  },

  drawAxis() {
    const context = prepared($('axis').querySelector('canvas'), View.plotWidth + View.right, 26);
    const { colours } = Theme;
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = 'middle';
    context.textAlign = 'center';
    context.fillStyle = colours.found;
    for (const row of Search.marks()) context.fillRect(Math.round(View.x(Turns.at[row])) - 1, 0, 2, 5);
    context.fillStyle = colours.soft;
    for (const { us, text } of View.ticks) {
      const x = View.x(us);
      const half = context.measureText(text).width / 2;
      context.fillRect(Math.round(x), 21, 1, 5);
      if (x - half >= 0 && x + half <= View.plotWidth + View.right) context.fillText(text, x, 12);
    }
    $('axis-date').textContent = View.gutter > 110 ? `${dateText(View.from)} UTC` : 'UTC';
  },
};
