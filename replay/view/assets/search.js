/* Finds the turns that hold a text, block by block, with the page alive meanwhile. Rows found are in order. */

const AHEAD = 8;

const Search = {
  rows: [],
  run: 0,
  done: true,
  progress: 0,
  query: '',
  changed: () => {},
  goTo: () => {},

  start() {
    let waiting = 0;
    $('query').addEventListener('input', () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => Search.find($('query').value), 200);
    });
    $('search').addEventListener('submit', (event) => {
      event.preventDefault();
      clearTimeout(waiting);
      const query = $('query').value.trim();
      if (query !== Search.query) Search.find(query, true);
      else Search.step(true);
    });
    $('match-previous').addEventListener('click', () => Search.step(false));
  },

  async find(text, thenGo = false) {
    const query = text.trim();
    if (query === Search.query) return;
    Search.query = query;
    Search.run += 1;
    const { run } = Search;
    Search.rows = [];
    Search.done = query === '';
    Search.progress = 0;
    Search.told();
    if (Search.done) return;
    const number = /^#(\d+)$/.exec(query);
    if (number) {
      const row = Turns.rowOf(Number(number[1]));
      if (row >= 0) Search.rows.push(row);
      Search.done = true;
      Search.told();
      if (thenGo) Search.step(true);
      return;
    }
    await Search.scan(query.toLowerCase(), run, thenGo);
  },

  async scan(wanted, run, thenGo) {
    let paused = performance.now();
    const unpacking = []; // a few blocks ahead, as a block is unpacked in threads of the browser's own
    for (let block = 0; block < Turns.blocks; block += 1) {
      while (unpacking.length < AHEAD && block + unpacking.length < Turns.blocks) {
        unpacking.push(Turns.text(block + unpacking.length));
      }
      const text = (await unpacking.shift()).toLowerCase();
      if (run !== Search.run) return; // another search has begun
      const before = Search.rows.length;
      if (text.includes(wanted)) {
        text.split('\n').forEach((line, index) => {
          if (line.includes(wanted)) Search.rows.push(block * BLOCK_TURNS + index);
        });
      }
      Search.progress = (block + 1) / Turns.blocks;
      if (thenGo && !before && Search.rows.length) Search.step(true, true);
      if (performance.now() - paused > 12) {
        Search.told();
        await (globalThis.scheduler?.yield?.() ?? new Promise((resume) => { setTimeout(resume); }));
        if (run !== Search.run) return;
        paused = performance.now();
      }
    }
    Search.done = true;
    Search.told();
  },

  /* To the next match after the current row, or the one before it; round at the ends. */
  step(forward, fromHere = false) {
    const { rows } = Search;
    if (!rows.length) return;
    const current = Cursor.row;
    const index = lastAtOrBefore(rows, fromHere ? current - 1 : current);
    const onIt = rows[index] === current;
    const next = forward ? index + 1 : index - (onIt ? 1 : 0);
    Search.goTo(rows[(next + rows.length) % rows.length]);
    Search.told();
  },

  told() {
    const { rows, query } = Search;
    let text = '';
    if (query) {
      const index = lastAtOrBefore(rows, Cursor.row);
      const place = rows[index] === Cursor.row ? `${index + 1} of ` : '';
      text = rows.length || !Search.done ? `${place}${rows.length} found` : `not found${Facts.overview ? ' in the overview' : ''}`;
      if (!Search.done) text += `, ${Math.round(Search.progress * 100)} %`;
    }
    $('search-status').textContent = text;
    Search.changed();
  },

  /* Rows to mark on the axis: one a pixel at most. */
  marks() {
    const marks = [];
    let last = -Infinity;
    const from = lastAtOrBefore(Search.rows.length ? Turns.at : [], View.from);
    for (let index = lastAtOrBefore(Search.rows, from) + 1; index < Search.rows.length; index += 1) {
      const x = View.x(Turns.at[Search.rows[index]]);
      if (x > View.plotWidth) break;
      if (x >= 0 && x - last >= 2) { marks.push(Search.rows[index]); last = x; }
    }
    return marks;
  },
};
