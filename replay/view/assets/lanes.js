/* Bands and markers. A band carries its text; a bad one is hatched, too, so that nothing rests on colour alone. */

const ROW = 22;
const BAND = 18;
const CLUSTER = 26;

/* The most severe first: it stands for those that are too close to it to be drawn. */
const KINDS = {
  failed: { name: 'turn failed', short: 'failed', colour: 'red', shape: 'star' },
  diverged: { name: 'replay differs', short: 'differs', colour: 'purple', shape: 'diamond' },
  altered: { name: 'checksum fails', short: 'altered', colour: 'red', shape: 'diamond' },
  error: { name: 'error raised, connection lost', short: 'error', colour: 'red', shape: 'up' },
  gap: { name: 'gap, or end of a damaged log', short: 'gap', colour: 'blue', shape: 'bar' },
  drop: { name: 'dropped or rejected', short: 'dropped', colour: 'orange', shape: 'cross' },
  refused: { name: 'refused by the PSU', short: 'refused', colour: 'orange', shape: 'down' },
  end: { name: 'shutdown', short: 'shutdown', colour: 'blue', shape: 'square' },
  begin: { name: 'driver started', short: 'start', colour: 'green', shape: 'right' },
  clock: { name: 'clock set', short: 'clock', colour: 'blue', shape: 'ring' },
  cleared: { name: 'error cleared', short: 'cleared', colour: 'green', shape: 'ring' },
};

const SEVERITY = Object.keys(KINDS);

const SHAPES = {
  up: [[0, -6], [6, 5], [-6, 5]],
  down: [[0, 6], [6, -5], [-6, -5]],
  right: [[-4, -6], [6, 0], [-4, 6]],
  diamond: [[0, -7], [6, 0], [0, 7], [-6, 0]],
  bar: [[-2, -8], [2, -8], [2, 8], [-2, 8]],
  square: [[-5, -5], [5, -5], [5, 5], [-5, 5]],
  cross: [[-6, -3], [-3, -6], [0, -3], [3, -6], [6, -3], [3, 0], [6, 3], [3, 6], [0, 3], [-3, 6], [-6, 3], [-3, 0]],
  star: [[0, -7], [2, -2], [7, -2], [3, 2], [4, 7], [0, 4], [-4, 7], [-3, 2], [-7, -2], [-2, -2]],
};

function drawShape(context, kind, x, y) {
  const { colour, shape } = KINDS[kind];
  context.fillStyle = context.strokeStyle = Theme.colours[colour];
  context.beginPath();
  if (shape === 'ring') {
    context.lineWidth = 2;
    context.arc(x, y, 5, 0, 7);
    context.stroke();
    return;
  }
  SHAPES[shape].forEach(([dx, dy], index) => (index ? context.lineTo(x + dx, y + dy) : context.moveTo(x + dx, y + dy)));
  context.closePath();
  context.fill();
  context.lineWidth = 1;
  context.strokeStyle = Theme.colours.paper;
  context.stroke();
}

/* Slanted lines, phase-locked to the picture so that they do not swim. */
function hatch(context, left, top, width, height, colour, spacing) {
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.setLineDash([]);
  context.strokeStyle = colour;
  context.lineWidth = spacing / 7;
  context.beginPath();
  for (let x = Math.floor((left - height) / spacing) * spacing; x < left + width; x += spacing) {
    context.moveTo(x, top + height);
    context.lineTo(x + height, top);
  }
  context.stroke();
  context.restore();
}

function drawGaps(context, gaps, left, top, width, height, ratio = 1) {
  for (const gap of gaps) {
    const begin = Math.max(0, View.x(gap.begin));
    const end = Math.min(View.plotWidth, View.x(gap.end));
    if (end < 0 || begin > View.plotWidth) continue;
    hatch(context, left + begin * ratio, top, Math.max(2, end - begin) * ratio, height, Theme.colours.hatch, 7 * ratio);
  }
}

class LaneGroup {
  constructor(lanes, markers, gaps) {
    this.lanes = lanes;
    this.markers = markers;
    this.gaps = gaps;
    this.at = markers.map((marker) => marker.at);
    this.clusters = [];
    this.names = [...lanes.map((lane) => lane.name), ...(markers.length ? ['Events'] : [])];
    this.element = element('div', 'lanes');
    for (const name of this.names) {
      const label = element('div', 'name', name);
      label.title = name;
      this.element.append(label);
    }
    this.canvas = element('canvas');
    this.canvas.setAttribute('role', 'img');
    this.canvas.setAttribute('aria-label', this.names.join(', '));
    this.element.append(this.canvas);
  }

  draw() {
    const height = this.names.length * ROW;
    const context = prepared(this.canvas, View.plotWidth + View.right, height);
    context.fillStyle = Theme.colours.grid;
    for (const { us } of View.ticks) context.fillRect(Math.round(View.x(us)), 0, 1, height);
    drawGaps(context, this.gaps, 0, 0, View.plotWidth, height);
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = 'middle';
    context.textAlign = 'left';
    this.lanes.forEach((lane, index) => this.drawLane(context, lane, index * ROW + (ROW - BAND) / 2));
    this.drawMarkers(context, this.lanes.length * ROW + ROW / 2);
  }

  drawLane(context, lane, top) {
    let index = Math.max(0, lastAtOrBefore(lane.at, View.from));
    let drawnTo = -1;
    for (; index < lane.at.length && lane.at[index] <= View.to; index += 1) {
      const value = lane.values[index];
      const end = Math.min(View.plotWidth, View.x(lane.at[index + 1] ?? Facts.endUs));
      if (value < 0 || (end <= drawnTo && lane.tones[value] !== 'bad')) continue;
      const begin = Math.max(0, View.x(lane.at[index]));
      this.drawBand(context, lane.texts[value], lane.tones[value], begin, Math.max(end, begin + 1), top);
      drawnTo = Math.ceil(end);
    }
  }

  drawBand(context, text, tone, begin, end, top) {
    const width = end - begin;
    if (text === 'none') {
      context.fillStyle = Theme.colours.idle;
      context.fillRect(begin, top + BAND / 2 - 1, width, 2);
      return;
    }
    context.fillStyle = Theme.colours[tone];
    context.fillRect(begin, top, width, BAND);
    if (width > 3) {
      context.fillStyle = Theme.colours.paper;
      context.fillRect(end - 1, top, 1, BAND);
    }
    if (width < 20) return;
    const shown = fitted(context, text, width - 10);
    const textWidth = shown ? context.measureText(shown).width + 9 : 0;
    if (tone === 'bad' && width - textWidth > 4) {
      hatch(context, begin + textWidth, top, width - textWidth - 1, BAND, Theme.colours.paper, 6);
    }
    context.fillStyle = Theme.colours[`${tone}-ink`];
    if (shown) context.fillText(shown, begin + 5, top + BAND / 2 + 0.5);
  }

  drawMarkers(context, y) {
    this.clusters = this.clustered();
    context.font = `10px ${getComputedStyle(document.body).fontFamily}`;
    for (const { x, markers } of this.clusters) {
      const kinds = new Set(markers.map((marker) => marker.kind));
      drawShape(context, SEVERITY.find((kind) => kinds.has(kind)), x, y);
      context.fillStyle = Theme.colours.soft;
      if (markers.length > 1) context.fillText(markers.length > 99 ? '99+' : String(markers.length), x + 8, y + 0.5);
    }
  }

  /* Markers in view; those too close to one another to be told apart are one. */
  clustered() {
    const clusters = [];
    let index = lastAtOrBefore(this.at, View.from - 1) + 1;
    for (; index < this.markers.length && this.at[index] <= View.to; index += 1) {
      const x = View.x(this.at[index]);
      const last = clusters[clusters.length - 1];
      if (last && x - last.x < CLUSTER) last.markers.push(this.markers[index]);
      else clusters.push({ x, markers: [this.markers[index]] });
    }
    return clusters;
  }

  /* What is at a point of the canvas, in words. */
  describe(x, y) {
    const index = Math.floor(y / ROW);
    const us = View.us(x);
    const gap = this.gaps.find((one) => us >= one.begin && us < one.end);
    if (gap) return `${gap.text}\n${momentText(gap.begin)} – ${momentText(gap.end)} (${durationText(gap.end - gap.begin)})`;
    if (index < this.lanes.length) return describeBand(this.lanes[index], us);
    const near = this.markersNear(x);
    const shown = near.slice(0, 6).map((marker) => `${momentText(marker.at)}  ${marker.text}`);
    return near.length > 6 ? `${shown.join('\n')}\nand ${near.length - 6} more` : shown.join('\n');
  }

  markersNear(x) {
    return this.clusters.find((cluster) => x > cluster.x - 8 && x < cluster.x + CLUSTER - 8)?.markers ?? [];
  }
}

function describeBand(lane, us) {
  const index = lastAtOrBefore(lane.at, us);
  if (index < 0 || lane.values[index] < 0 || us > Facts.endUs) return '';
  const [begin, end] = [lane.at[index], lane.at[index + 1] ?? Facts.endUs];
  return `${lane.name}: ${lane.texts[lane.values[index]]}\n${momentText(begin)} – ${momentText(end)} (${durationText(end - begin)})`;
}

/* The text, cut to a width; empty if less than three characters fit. */
function fitted(context, text, width) {
  if (width < 14) return '';
  if (context.measureText(text).width <= width) return text;
  const characters = Math.floor((width / context.measureText(text).width) * text.length) - 1;
  return characters < 3 ? '' : `${text.slice(0, characters)}…`;
}
