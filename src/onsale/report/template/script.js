// One crosshair through all plots, and the values beside it. The page is complete without this.
(() => {
  const body = document.body.dataset;
  const [begin, step, origin] = [Number(body.begin), Number(body.step), Number(body.origin)];
  const root = document.documentElement.style;
  const tip = document.getElementById('tip');

  const short = (v) => (v === 0 || Math.abs(v) >= 100 ? Math.round(v).toLocaleString('en') : String(Number(v.toPrecision(3))));
  const bytes = (v) => {
    const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let n = 0;
    for (; Math.abs(v) >= 1024 && n < names.length - 1; n += 1) v /= 1024;
    return `${short(v)} ${names[n]}`;
  };
  const texts = {
    s: (v) => (v === 0 ? '0 s' : Math.abs(v) < 1e-3 ? `${short(v * 1e6)} µs` : Math.abs(v) < 1 ? `${short(v * 1e3)} ms` : `${short(v)} s`),
    percentunit: (v) => `${short(v * 100)} %`,
    reqps: (v) => `${short(v)}/s`,
    ops: (v) => `${short(v)}/s`,
    bytes,
    Bps: (v) => `${bytes(v)}/s`,
  };

  function row(left, right) {
    const line = document.createElement('div');
    for (const part of [left, right]) {
      const span = document.createElement('span');
      span.append(...[].concat(part));
      line.append(span);
    }
    return line;
  }

  function show(plot, area, event) {
    const box = area.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const { unit, lines } = plot;
    const index = Math.round(share * (lines[0][2].length - 1));
    root.setProperty('--at', index / (lines[0][2].length - 1));
    root.setProperty('--cross', 1);
    const text = texts[unit] || short;
    tip.replaceChildren(row(`${(begin + index * step - origin).toFixed(step < 1 ? 1 : 0)} s`, ''));
    for (const [name, colour, values] of lines) {
      if (values[index] === null) continue;
      const key = document.createElement('b');
      key.className = `key c${colour}`;
      tip.append(row([key, name], text(values[index])));
    }
    tip.hidden = false;
    const left = event.clientX + 16 + tip.offsetWidth > innerWidth ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16;
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
  }

  function hide() {
    tip.hidden = true;
    root.setProperty('--cross', 0);
  }

  for (const figure of document.querySelectorAll('.plot')) {
    const area = figure.querySelector('.area');
    if (!area) continue;
    const plot = JSON.parse(figure.dataset.plot);
    area.addEventListener('pointermove', (event) => show(plot, area, event));
    area.addEventListener('pointerdown', (event) => show(plot, area, event));
    area.addEventListener('pointerleave', hide);
  }
  // One explanation at a time, and none when one looks elsewhere.
  document.addEventListener('click', (event) => {
    for (const open of document.querySelectorAll('.what[open]')) if (!open.contains(event.target)) open.open = false;
  });
  const unfold = () => {
    const target = location.hash && document.querySelector(location.hash);
    if (target && target.tagName === 'DETAILS') target.open = true;
  };
  addEventListener('hashchange', unfold);
  unfold();
})();
