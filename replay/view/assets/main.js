/* Puts the parts together: lanes and curves from the log, the cursor that all of them share, the tables. */

const Cursor = { us: 0, row: 0, pinned: false };
const Groups = [];
let turnRows;
let eventRows;

class Group {
  constructor(number, timeline) {
    const own = (one) => one.group === number;
    const { gaps } = timeline;
    const curves = timeline.curves.filter(own);
    const markers = timeline.markers.filter(own);
    const lanes = timeline.lanes.filter(own);
    this.lanes = new LaneGroup(lanes, markers, gaps);
    const names = [...new Set(curves.map((curve) => curve.panel))];
    this.panels = names.map((name) => new Panel(name, curves.filter((curve) => curve.panel === name), gaps));
    this.element = element('section', 'group');
    this.element.id = `group-${number}`;
    const heading = element('h2');
    this.toggle = element('button', '', groupName(number));
    const quiet = number > 0 && !markers.length && lanes.every((lane) => lane.texts.length < 2);
    if (quiet) this.toggle.append(element('span', '', 'nothing happened here'));
    this.toggle.addEventListener('click', () => this.open(this.closed));
    heading.append(this.toggle);
    this.body = element('div', 'body');
    if (this.lanes.names.length) this.body.append(this.lanes.element);
    this.body.append(...this.panels.map((panel) => panel.element));
    this.element.append(heading, this.body);
    this.lanes.canvas.addEventListener('pointermove', (event) => this.describe(event));
    this.lanes.canvas.addEventListener('pointerleave', () => Tip.hide());
    this.open(!quiet);
  }

  open(isOpen) {
    this.closed = !isOpen;
    this.element.classList.toggle('closed', !isOpen);
    this.toggle.setAttribute('aria-expanded', isOpen);
    drawSoon();
  }

  describe(event) {
    if (Gestures.drag) return;
    const text = this.lanes.describe(event.offsetX, event.offsetY);
    if (text) Tip.show(text, event.clientX, event.clientY);
    else Tip.hide();
  }

  draw() {
    const box = this.element.getBoundingClientRect();
    const frame = $('timeline').getBoundingClientRect();
    if (this.closed || box.bottom < frame.top - 200 || box.top > frame.bottom + 200) return;
    this.lanes.draw();
    this.panels.forEach((panel) => panel.draw());
  }
}

let drawing = 0;
function drawSoon() {
  drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); });
}

function draw() {
  View.updateTicks();
  View.drawAxis();
  Groups.forEach((group) => group.draw());
  drawCursor();
}

function drawCursor() {
  const cursor = $('cursor');
  const x = View.x(Cursor.us);
  cursor.hidden = x < 0 || x > View.plotWidth;
  cursor.style.left = `${View.gutter + x}px`;
  const label = cursor.firstElementChild;
  label.textContent = momentText(Cursor.us, View.to - View.from < 2e5 ? 6 : 3);
  const half = label.offsetWidth / 2; // the label stays over the axis: beside it stands the date
  const shift = Math.max(0, half - x) - Math.max(0, x + half - View.plotWidth - View.right);
  label.style.transform = `translateX(calc(-50% + ${shift}px))`;
  cursor.classList.toggle('pinned', Cursor.pinned);
  $('pinned').hidden = !Cursor.pinned;
}

/* The cursor stands at a moment; table, detail and legends show what was then. */
function showMoment(us, row = Turns.rowAt(us)) {
  Cursor.us = Math.min(Math.max(us, 0), Facts.endUs);
  Cursor.row = row;
  Groups.forEach((group) => group.panels.forEach((panel) => panel.showValues(Cursor.us)));
  turnRows.show(row);
  eventRows.show(Math.max(0, lastAtOrBefore(Events.rows, row)));
  Detail.show(row);
  drawCursor();
}

/* A person picked that turn. */
function goToRow(row) {
  if (row === undefined || row < 0) return;
  Cursor.pinned = true;
  View.reveal(Turns.at[row]);
  showMoment(Turns.at[row], row);
}

function pin(isPinned) {
  Cursor.pinned = isPinned;
  drawCursor();
}

function showTab(name) {
  for (const tab of ['turns', 'events', 'detail']) {
    $(`tab-${tab}`).setAttribute('aria-selected', tab === name);
  }
  $('turns').hidden = name === 'events';
  $('events').hidden = name !== 'events';
  $('bottom').classList.toggle('detail', name === 'detail');
  turnRows.show(Cursor.row);
}

function showFacts() {
  $('title').textContent = Facts.title;
  const summary = $('summary');
  const turns = element('b', '', `${Facts.turns.toLocaleString('en')} turns`);
  if (Facts.overview) summary.append(element('span', 'warn', 'Overview'), ': ');
  let verdict = `, replayed as recorded by version ${Facts.drawn_by}`;
  if (!Facts.replayed) verdict = ', not replayed';
  else if (Facts.replayed < Facts.turns && !Facts.differing) verdict = `, ${Facts.replayed.toLocaleString('en')} of them replayed, as recorded, by version ${Facts.drawn_by}`;
  else if (Facts.differing) verdict = `, ${Facts.differing.toLocaleString('en')} differ when replayed by version ${Facts.drawn_by}`;
  summary.append(`${dateText(0)}, ${timeText(0, 0)} to ${Facts.days > 1 ? `${dateText(Facts.endUs)}, ` : ''}${timeText(Facts.endUs, 0)} UTC (${durationText(Facts.endUs)}), `, turns,
    element('span', Facts.differing || Facts.replayed < Facts.turns ? 'warn' : '', verdict),
    `; recorded by version ${Facts.recorded_by.join(', ')}`);
  const notes = $('notes');
  notes.hidden = Facts.notes.length === 0;
  notes.open = Facts.notes.length < 4;
  notes.firstElementChild.textContent = Facts.notes.length === 1 ? '1 remark on this log' : `${Facts.notes.length} remarks on this log`;
  notes.lastElementChild.append(...Facts.notes.map((note) => element('li', '', note)));
  if (Facts.overview) $('tab-turns').textContent = `Turns (${Turns.rows.toLocaleString('en')} of ${Facts.turns.toLocaleString('en')})`;
  $('tab-events').textContent = `Events (${Events.all.length})`;
}

function drawKinds() {
  $('kinds').replaceChildren(...Object.entries(KINDS).map(([kind, { name }]) => {
    const item = element('li');
    const canvas = element('canvas');
    drawShape(prepared(canvas, 18, 18), kind, 9, 9);
    item.append(canvas, name);
    return item;
  }));
}

function startTools() {
  const middle = () => (Cursor.us >= View.from && Cursor.us <= View.to ? Cursor.us : (View.from + View.to) / 2);
  const nextEvent = (forward) => goToRow(Events.beside(Cursor.row, forward));
  const turn = (step) => goToRow(Math.min(Math.max(Cursor.row + step, 0), Turns.rows - 1));
  const part = (fraction) => View.pan((View.to - View.from) * fraction);
  const actions = {
    '+': () => View.zoom(0.6, middle()), '=': () => View.zoom(0.6, middle()), '-': () => View.zoom(1 / 0.6, middle()),
    0: View.reset, ArrowLeft: () => turn(-1), ArrowRight: () => turn(1),
    'Shift+ArrowLeft': () => part(-0.25), 'Shift+ArrowRight': () => part(0.25),
    e: () => nextEvent(true), E: () => nextEvent(false), n: () => Search.step(true), N: () => Search.step(false),
    '/': () => $('query').focus(), '?': () => $('help').showModal(),
    Escape: () => { pin(false); document.activeElement.blur(); },
  };
  document.addEventListener('keydown', (event) => Gestures.keys(event, actions));
  const buttons = {
    'zoom-in': '+', 'zoom-out': '-', reset: 0, 'event-next': 'e', 'event-previous': 'E', 'help-open': '?',
  };
  for (const [id, key] of Object.entries(buttons)) $(id).addEventListener('click', actions[key]);
  for (const tab of ['turns', 'events', 'detail']) $(`tab-${tab}`).addEventListener('click', () => showTab(tab));
  startSplitter();
}

function startSplitter() {
  const splitter = $('splitter');
  const set = (pixels) => {
    document.body.style.setProperty('--bottom', `${Math.min(Math.max(pixels, 60), innerHeight - 200)}px`);
    resized();
  };
  splitter.addEventListener('pointerdown', (event) => splitter.setPointerCapture(event.pointerId));
  splitter.addEventListener('pointermove', (event) => {
    if (splitter.hasPointerCapture(event.pointerId)) set(innerHeight - event.clientY - 3);
  });
  splitter.addEventListener('keydown', (event) => {
    const step = { ArrowUp: 24, ArrowDown: -24 }[event.key];
    if (step) set($('bottom').offsetHeight + step);
  });
}

function resized() {
  const { gutter } = View;
  View.measure();
  if (gutter !== View.gutter) Groups.forEach((group) => group.panels.forEach((panel) => panel.forget()));
  drawSoon();
}

function startGestures() {
  Gestures.hovered = (x) => { if (x >= 0 && x <= View.plotWidth && !Cursor.pinned) showMoment(View.us(x)); };
  Gestures.clicked = (x, event) => {
    const group = Groups.find((one) => one.lanes.canvas === event.target);
    const onMarkers = group && Math.floor(event.offsetY / ROW) >= group.lanes.lanes.length;
    const [marker] = onMarkers ? group.lanes.markersNear(x) : [];
    if (marker) { goToRow(marker.row); return; }
    if (Cursor.pinned && event.pointerType === 'mouse') { pin(false); showMoment(View.us(x)); return; }
    showMoment(View.us(x));
    pin(true);
  };
  Gestures.selected = (from, to) => View.show(from, to);
  Gestures.start();
}

function themeChanged() {
  Groups.forEach((group) => group.panels.forEach((panel) => panel.forget()));
  drawKinds();
  drawSoon();
}

async function main() {
  Facts.load();
  Theme.start(themeChanged);
  Theme.apply();
  const timeline = JSON.parse(await unpacked($('timeline-data').textContent));
  Turns.load(timeline);
  Events.load(timeline.markers);
  showFacts();
  drawKinds();
  const numbers = [0, ...Facts.connectors.map((_, index) => index + 1)];
  if (timeline.curves.some((curve) => curve.group === -1)) numbers.push(-1);
  Groups.push(...numbers.map((number) => new Group(number, timeline)));
  $('groups').append(...Groups.map((group) => group.element));
  View.changed = drawSoon;
  View.measure();
  [View.from, View.to] = View.bounds();
  draw();
  await new Promise((painted) => { requestAnimationFrame(painted); }); // uPlot draws at the end of a task
  performance.mark('timeline-drawn');
  turnRows = new Rows($('turns'), Turns.rows, fillTurn, goToRow);
  eventRows = new Rows($('events'), Events.all.length, fillEvent, (index) => goToRow(Events.all[index].row));
  Search.goTo = goToRow;
  Search.changed = drawSoon;
  Search.start();
  startTools();
  startGestures();
  $('timeline').addEventListener('scroll', drawSoon, { passive: true });
  new ResizeObserver(resized).observe($('timeline'));
  showMoment(0, 0);
  document.documentElement.dataset.ready = 'yes';
}

main();
