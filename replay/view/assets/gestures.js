/* Mouse, touch and keys on the timeline. */

const Gestures = {
  pointers: new Map(),
  drag: null,
  hovered: () => {},
  clicked: () => {},
  selected: () => {},

  start() {
    const content = $('content');
    content.addEventListener('wheel', Gestures.wheel, { passive: false });
    content.addEventListener('pointerdown', Gestures.down);
    content.addEventListener('pointermove', Gestures.move);
    content.addEventListener('pointerup', Gestures.up);
    content.addEventListener('pointercancel', Gestures.cancel);
    content.addEventListener('pointerleave', () => { Tip.hide(); });
    content.addEventListener('dblclick', (event) => { if (Gestures.x(event) >= 0 && !event.target.closest('button')) View.reset(); });
  },

  /* Within the plot; negative over the names. */
  x: (event) => event.clientX - $('content').getBoundingClientRect().left - View.gutter,

  wheel(event) {
    const x = Gestures.x(event);
    if (x < 0 || event.target.closest('button')) return;
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : 1;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      View.pan(((sideways * unit) / View.plotWidth) * (View.to - View.from));
    } else {
      View.zoom(1.0015 ** (event.deltaY * unit), View.us(x));
    }
  },

  down(event) {
    const x = Gestures.x(event);
    if (x < 0 || event.button !== 0 || event.target.closest('button')) return;
    Gestures.pointers.set(event.pointerId, x);
    if (Gestures.pointers.size === 2) { Gestures.startPinch(); return; }
    Gestures.drag = { x, from: View.from, to: View.to, moved: false, selects: event.shiftKey };
  },

  move(event) {
    const x = Gestures.x(event);
    const { drag, pointers } = Gestures;
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, x);
    if (drag?.pinch) { Gestures.pinch(); return; }
    if (!drag) { Gestures.hovered(x, event); return; }
    if (!drag.moved && Math.abs(x - drag.x) > 4) {
      drag.moved = true;
      $('content').setPointerCapture(event.pointerId);
      $('content').classList.add('dragging');
      Tip.hide();
    }
    if (!drag.moved) return;
    if (drag.selects) { Gestures.showSelection(drag.x, x); return; }
    const us = ((x - drag.x) / View.plotWidth) * (drag.to - drag.from);
    View.show(drag.from - us, drag.to - us);
  },

  up(event) {
    const { drag } = Gestures;
    const x = Gestures.x(event);
    Gestures.cancel(event);
    if (!drag || drag.pinch) return;
    if (!drag.moved) Gestures.clicked(x, event);
    else if (drag.selects) Gestures.selected(...[View.us(drag.x), View.us(x)].sort((a, b) => a - b));
  },

  cancel(event) {
    Gestures.pointers.delete(event.pointerId);
    if (Gestures.pointers.size === 0) Gestures.drag = null;
    $('content').classList.remove('dragging');
    $('selection').hidden = true;
  },

  showSelection(one, other) {
    const [left, right] = [one, other].sort((a, b) => a - b).map((x) => Math.min(Math.max(x, 0), View.plotWidth));
    Object.assign($('selection').style, { left: `${View.gutter + left}px`, width: `${right - left}px` });
    $('selection').hidden = false;
  },

  startPinch() {
    const [one, other] = [...Gestures.pointers.values()];
    Gestures.drag = { pinch: [View.us(one), View.us(other)] };
  },

  /* The two moments under the two fingers stay under them. */
  pinch() {
    const [one, other] = [...Gestures.pointers.values()];
    const [left, right] = Gestures.drag.pinch;
    if (other === undefined || Math.abs(other - one) < 8) return;
    const perPixel = Math.abs((right - left) / (other - one));
    const from = left - one * perPixel;
    View.show(from, from + perPixel * View.plotWidth);
  },

  keys(event, actions) {
    if (event.ctrlKey || event.metaKey || event.altKey || $('help').open) return;
    const typing = event.target.closest('input');
    if (typing && event.key !== 'Escape') return;
    const name = event.shiftKey && event.key.length > 1 ? `Shift+${event.key}` : event.key;
    const action = actions[name];
    if (!action) return;
    event.preventDefault();
    action();
  },
};
