"use strict";

/* The page: settings to numbers (weighting.js), numbers to pictures and sentences. */
(() => {
  const { coreRow, coreColumn } = Weighting;
  const { element } = HeatMap;
  const byId = id => document.getElementById(id);

  let wanted = { ...Controls.START };

  /** What the reader asked for, brought to sizes that fit; larger sizes come back when they do. */
  function settings() {
    const s = Weighting.settle(wanted);
    return { ...s, row: Math.min(s.row, s.d_r - 1), column: Math.min(s.column, s.d_c - 1) };
  }

  function change(some) {
    wanted = { ...wanted, ...some };
    render();
  }

  // Pictures.
  const asCore = { onPick: (row, column) => change({ row, column }) };
  const coreOf = (i, j) => `Q[${coreRow(settings(), i)}, ${coreColumn(settings(), j)}]`;
  const asCopies = where => ({
    onPick: (i, j) => change({ row: coreRow(settings(), i), column: coreColumn(settings(), j) }),
    describe: (i, j) => `, ${where} of ${coreOf(i, j)}`,
  });
  const asOutput = { onPick: (sample, output) => change({ sample, output }) };
  const pictures = Object.fromEntries([
    ["R", "row factor"],
    ["C", "column factor"],
    ["P", "core before the sigmoid"],
    ["Q", "core", asCore],
    ["S", "weighting matrix", asCopies("a copy")],
    ["W", "weights of the layer"],
    ["V", "weights that this example meets"],
    ["H", "input, an example per row"],
    ["bias", "added to every row of A"],
    ["A", "output, an example per row", asOutput],
    ["dS", "gradient of S", asCopies("at a copy")],
    ["dQ", "gradient of the core", asCore],
    ["dP", "gradient of P"],
    ["dR", "gradient of the row factor"],
    ["dC", "gradient of the column factor"],
  ].map(([name, ...more]) => [name, new HeatMap.Picture(name, ...more)]));

  const largest = values => Math.max(...values.flat(2).map(Math.abs)) || 1;

  /** Show one matrix; colours run from -high to high unless low is given. */
  function show(name, values, { tag, high = largest(values), low = -high, ...options } = {}) {
    const size = `${values.length} × ${values[0].length}`;
    const caption = [element("b", {}, name)];
    if (tag) {
      const kind = tag.startsWith("shared") ? "tag is-shared" : "tag";
      caption.push(element("span", { class: kind }, tag));
    }
    caption.push(element("span", {}, `${pictures[name].about}, ${size}`));
    pictures[name].show(values, { low, high, caption, ...options });
  }

  const isCore = s => (r, c) => r === s.row && c === s.column;
  const isCopy = s => (i, j) => coreRow(s, i) === s.row && coreColumn(s, j) === s.column;

  /** Lines around the copies of an entry (block), or around each copy of the core (tile). */
  function edgesOf(s) {
    const starts = (i, length, n_groups) =>
      i > 0 && i % (s.mode === "tile" ? n_groups : length / n_groups) === 0;
    return (i, j) => ({ top: starts(i, s.d_m, s.d_r), left: starts(j, s.d_n, s.d_c) });
  }

  function showForward(s, values) {
    const { R, C, P, Q, S, V } = values.examples[s.sample];
    const shared = "shared by all examples";
    const own = `of example ${s.sample}`;
    const tagOf = name => (Weighting.sharedFactor(s.variant) === name ? shared : own);
    if (R) show("R", R, { high: 2, tag: tagOf("R") });
    if (C) show("C", C, { high: 2, tag: tagOf("C") });
    show("P", P, { high: largest(values.examples.map(x => x.P)), tag: own });
    show("Q", Q, { low: 0, high: s.gain, tag: own, isMarked: isCore(s) });
    show("S", S, { low: 0, high: s.gain, tag: own, isMarked: isCopy(s), edges: edgesOf(s) });
    show("W", values.W, { high: 1, tag: shared });
    show("V", V, { high: s.gain, tag: own });
    show("H", values.H, { high: 1, current: s.sample });
    show("bias", values.b, { high: 1, tag: shared });
    const isClicked = (b, j) => j === s.output && (s.every || b === s.sample);
    show("A", values.A, { current: s.sample, isMarked: isClicked });
  }

  function showBackward(s, adjoints) {
    const { dS, dQ, dP, dR, dC } = adjoints[s.sample];
    const own = `of example ${s.sample}`;
    const shared = Weighting.sharedFactor(s.variant);
    const tagOf = name => (shared === name ? "shared: sum over examples" : own);
    show("dS", dS, { tag: own, isMarked: isCopy(s), edges: edgesOf(s) });
    show("dQ", dQ, { tag: own, isMarked: isCore(s) });
    show("dP", dP, { tag: own });
    if (dR) show("dR", dR, { tag: tagOf("R") });
    if (dC) show("dC", dC, { tag: tagOf("C") });
  }

  function showCounts(counts) {
    const line = (name, ...numbers) => element("tr", {},
      element("th", { scope: "row" }, name), ...numbers.map(n => element("td", {}, String(n))));
    const rows = counts.parts.map(({ part, parameters, work, work_built }) =>
      line(part === "weighting" ? `weighting (${counts.form} form)` : part,
        parameters, work, work_built));
    const total = line("together", counts.parameters, counts.grouped, counts.built);
    total.className = "total";
    byId("counts").tBodies[0].replaceChildren(...rows, total);
  }

  /** Numbers that each form of the product keeps for an example, as bars. */
  function showBars({ kept }) {
    const names = { built: "S built", row: "row form", column: "column form" };
    byId("bars").replaceChildren(...Object.entries(names).flatMap(([form, name]) => {
      const bar = element("span");
      bar.style.width = `${(kept[form] / kept.built) * 80}%`;
      return [element("dt", {}, name), element("dd", {}, bar, String(kept[form]))];
    }));
  }

  function render() {
    const s = settings();
    const values = Weighting.forward(s);
    const adjoints = Weighting.backward(s, values);
    const counts = Weighting.counts(s);
    for (const name of ["R", "C", "dR", "dC"]) {
      pictures[name].figure.hidden = s.variant === "non";
    }
    showControls(s);
    showForward(s, values);
    showBackward(s, adjoints);
    Sentences.show(s, values, adjoints, counts);
    showCounts(counts);
    showBars(counts);
  }

  for (const place of document.querySelectorAll("[data-maps]")) {
    place.append(...place.dataset.maps.split(" ").map(name => pictures[name].figure));
  }
  const showControls = Controls.make(settings, change);
  render();
})();
