/* Lists of which only the rows in view exist: turns and events. */

class Rows {
  /* `fill(row element, index)` writes a row's cells; `chosen(index)` is called when a person picks one. */
  constructor(container, count, fill, chosen) {
    Object.assign(this, { container, count, fill, chosen, current: -1, drawn: new Map() });
    this.space = element('div');
    container.append(this.space);
    this.resize(count);
    container.addEventListener('scroll', () => this.draw(), { passive: true });
    container.addEventListener('click', (event) => {
      const row = event.target.closest('.row');
      if (row) chosen(Number(row.dataset.index));
    });
    container.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(container);
  }

  resize(count) {
    this.count = count;
    this.container.setAttribute('aria-rowcount', count);
    this.space.style.height = `${count * ROW}px`;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.container.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.chosen(Math.min(Math.max(this.current + steps[event.key], 0), this.count - 1));
  }

  /* Make a row the current one, and bring it into view. */
  show(index) {
    const { clientHeight, scrollTop } = this.container;
    this.current = index;
    const top = index * ROW;
    if (top < scrollTop + ROW || top > scrollTop + clientHeight - 2 * ROW) {
      this.container.scrollTop = top - clientHeight / 2 + ROW / 2;
    }
    this.draw();
  }

  draw(again = false) {
    const { clientHeight, scrollTop } = this.container;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - 4);
    const last = Math.min(this.count, Math.ceil((scrollTop + clientHeight) / ROW) + 4);
    for (const [index, row] of this.drawn) {
      if (again || index < first || index >= last) {
        row.remove();
        this.drawn.delete(index);
      }
    }
    for (let index = first; index < last && clientHeight; index += 1) {
      let row = this.drawn.get(index);
      if (!row) {
        row = element('div', 'row');
        row.setAttribute('role', 'row');
        row.setAttribute('aria-rowindex', index + 1);
        row.dataset.index = index;
        row.style.top = `${index * ROW}px`;
        this.fill(row, index);
        this.drawn.set(index, row);
        this.container.append(row);
      }
      row.classList.toggle('current', index === this.current);
    }
  }
}

function cell(row, className, text) {
  const made = element('span', className, text);
  made.setAttribute('role', 'cell');
  row.append(made);
  return made;
}

const BRIEF_WITHOUT = new Set(['adu', 'frame', 'transaction_id', 'unit_id']);

/* A turn's input, in short. */
function brief(input) {
  return fieldTexts(input)
    .filter(([name]) => !BRIEF_WITHOUT.has(name))
    .map(([name, text]) => `${name} ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`)
    .join(', ');
}

/* Events, and by row which there are. */
const Events = {
  all: [],
  byRow: new Map(),
  rows: [],
  load(markers) {
    Events.all = markers;
    Events.rows = markers.map((marker) => marker.row);
    for (const marker of markers) {
      if (!Events.byRow.has(marker.row)) Events.byRow.set(marker.row, []);
      Events.byRow.get(marker.row).push(marker);
    }
  },
  /* The next event after a row, or before it. */
  beside(row, forward) {
    return forward ? Events.rows.find((one) => one > row) : Events.rows.findLast((one) => one < row);
  },
};

function fillTurn(row, index) {
  cell(row, 'number', String(Turns.name(index)[0]));
  cell(row, 'time', momentText(Turns.at[index]));
  cell(row, 'what', Turns.types[Turns.inputs[index]]);
  const short = cell(row, 'brief', '');
  const count = cell(row, 'count', '');
  const events = Events.byRow.get(index) ?? [];
  for (const kind of new Set(events.map((event) => event.kind))) {
    const alike = events.filter((event) => event.kind === kind);
    const flag = element('span', `flag ${kind}`, alike.length > 1 ? `${KINDS[kind].short} ×${alike.length}` : KINDS[kind].short);
    flag.title = alike.map((event) => event.text).join('\n');
    count.append(flag);
  }
  Turns.turn(index).then((turn) => {
    short.textContent = brief(turn.i);
    const outputs = turn.o?.length ?? 0;
    if (outputs) count.prepend(`${outputs} out`);
  });
}

function fillEvent(row, index) {
  const { at, kind, group, text } = Events.all[index];
  cell(row, 'time', momentText(at));
  cell(row, `flag ${kind}`, KINDS[kind].short).style.marginLeft = '0';
  cell(row, 'where', groupName(group));
  cell(row, 'text', text).title = text;
}
