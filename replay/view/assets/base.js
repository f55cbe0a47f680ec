/* What all parts use: elements, colours, times. Text from the log only ever becomes text nodes. */

const $ = (id) => document.getElementById(id);

function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== '') made.textContent = text;
  return made;
}

const Theme = {
  /* Custom properties of the present theme, which canvases need as values. */
  colours: {},
  ofSystem: matchMedia('(prefers-color-scheme: dark)'),
  chosen: '',
  apply(changed) {
    const dark = Theme.chosen ? Theme.chosen === 'dark' : Theme.ofSystem.matches;
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    $('theme').textContent = dark ? 'Light' : 'Dark';
    const style = getComputedStyle(document.documentElement);
    for (const name of ['paper', 'panel', 'ink', 'soft', 'line', 'grid', 'accent', 'hatch', 'found', 'setpoint',
      'asked', 'output', 'imd', 'ovm', 'red', 'green', 'orange', 'purple', 'blue', 'idle', 'preparing', 'checking',
      'active', 'done', 'bad', 'idle-ink', 'preparing-ink', 'checking-ink', 'active-ink', 'done-ink', 'bad-ink']) {
      Theme.colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    if (changed) changed();
  },
  start(changed) {
    Theme.ofSystem.addEventListener('change', () => Theme.apply(changed));
    $('theme').addEventListener('click', () => {
      Theme.chosen = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
      Theme.apply(changed);
    });
  },
};

/* A canvas of that size in CSS pixels, sharp on any screen; its context, cleared. */
function prepared(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

const pad = (value, digits = 2) => String(value).padStart(digits, '0');

/* Time of day (UTC) of a moment, in µs since the log's begin. */
function timeText(us, decimals = 3) {
  const whole = Facts.beginUs + Math.round(us);
  const date = new Date(Math.floor(whole / 1e6) * 1000);
  const clock = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}:${pad(date.getUTCSeconds())}`;
  return decimals ? `${clock}.${pad(((whole % 1e6) + 1e6) % 1e6, 6).slice(0, decimals)}` : clock;
}

/* The same, with the day if the log is of several. */
function momentText(us, decimals = 3) {
  return Facts.days > 1 ? `${dateText(us).slice(5)} ${timeText(us, decimals)}` : timeText(us, decimals);
}

const dateText = (us) => new Date((Facts.beginUs + us) / 1000).toISOString().slice(0, 10);

function durationText(us) {
  if (us < 1e3) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : 0)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
  const seconds = Math.round(us / 1e6);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/* The last index whose value is at or before `wanted`; -1 if there is none. */
function lastAtOrBefore(sorted, wanted) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= wanted) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/* Local numbers, as the log has them, and global ones, as people know them. */
function groupName(group) {
  if (group < 0) return 'AC input of the power unit';
  if (group === 0) return 'System';
  const global = Facts.connectors[group - 1];
  return global === group || global === undefined ? `Connector ${group}` : `Connector ${group} (no. ${global})`;
}

const Tip = {
  show(text, x, y) {
    const tip = $('tip');
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  },
  hide() { $('tip').hidden = true; },
};
