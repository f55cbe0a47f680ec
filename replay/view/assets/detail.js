/* One turn: its input, its outputs, what it changed; recorded and replayed side by side where they differ. */

const Detail = {
  wanted: -1,

  async show(row) {
    if (row === Detail.wanted) return;
    Detail.wanted = row;
    const turn = await Turns.turn(row);
    if (row !== Detail.wanted) return; // the cursor is elsewhere by now
    const [number, run] = Turns.name(row);
    const heading = element('h2', '', `Turn ${number}`);
    heading.append(element('small', '', `${turn.u}  run ${run.slice(0, 8)}`));
    const parts = [heading];
    for (const marker of Events.byRow.get(row) ?? []) {
      parts.push(element('p', `flag ${marker.kind}`, marker.group > 0 ? `${groupName(marker.group)}: ${marker.text}` : marker.text));
    }
    if (turn.e) parts.push(element('p', 'warn', `The core raised ${turn.e}`));
    if (turn.c === false) parts.push(element('p', 'warn', 'The log ends here: outputs may be missing.'));
    const columns = element('div', 'columns');
    const [messages, states] = [element('div'), element('div')];
    messages.append(element('h3', '', 'Input'), messageTable(turn.i), ...outputParts(turn));
    states.append(...stateParts(turn));
    columns.append(messages, states);
    parts.push(columns);
    const detail = $('detail');
    detail.replaceChildren(...parts);
    detail.scrollTop = 0;
    detail.dataset.row = row;
  },
};

function tableOf(caption, head, rows) {
  const table = element('table');
  if (caption) table.append(element('caption', '', caption));
  if (head) {
    const line = table.createTHead().insertRow();
    head.forEach((text, index) => line.append(element('th', index ? '' : 'field', text)));
  }
  const body = table.createTBody();
  for (const { cells, differs } of rows) {
    const line = body.insertRow();
    if (differs) line.className = 'differs';
    cells.forEach((text, index) => line.append(index ? element('td', '', text) : element('th', 'field', text)));
  }
  return table;
}

const messageTable = (message, caption = message.type) =>
  tableOf(caption, null, fieldTexts(message).map((cells) => ({ cells })));

function outputParts(turn) {
  const recorded = turn.o ?? [];
  const replayed = turn.r;
  const title = recorded.length === 1 ? '1 output' : `${recorded.length} outputs`;
  const parts = [element('h3', '', replayed ? `${title}, recorded and replayed` : title)];
  if (!replayed) return [...parts, ...recorded.map((output, index) => messageTable(output, `${index + 1}  ${output.type}`))];
  for (let index = 0; index < Math.max(recorded.length, replayed.length); index += 1) {
    parts.push(comparison(index, recorded[index], replayed[index]));
  }
  return parts;
}

function comparison(index, recorded, replayed) {
  const types = [recorded?.type ?? 'nothing', replayed?.type ?? 'nothing'];
  const caption = types[0] === types[1] ? types[0] : `${types[0]} ≠ ${types[1]}`;
  const [left, right] = [recorded, replayed].map((message) => new Map(message ? fieldTexts(message) : []));
  const rows = [...new Set([...left.keys(), ...right.keys()])].map((name) => {
    const cells = [name, left.get(name) ?? '–', right.get(name) ?? '–'];
    const differs = cells[1] !== cells[2];
    return { cells: differs ? [`≠ ${name}`, cells[1], cells[2]] : cells, differs };
  });
  return tableOf(`${index + 1}  ${caption}`, ['', 'recorded', 'replayed'], rows);
}

const stateText = (value) => (value === null ? '–' : valueText(value));

function stateParts(turn) {
  const title = element('h3', '', 'State changed');
  if (!turn.d?.length) {
    const why = Facts.replayed ? 'Nothing.' : 'Not known: this log was not replayed.';
    return [title, element('p', 'quiet', why)];
  }
  const actors = [...new Set(turn.d.map(([actor]) => actor))];
  return [title, ...actors.map((actor) => {
    const rows = turn.d.filter(([name]) => name === actor)
      .map(([, field, before, after]) => ({ cells: [field, stateText(before), stateText(after)] }));
    return tableOf(actor, ['field', 'before', 'after'], rows);
  })];
}
