"use strict";

/*
 * A matrix as a heat map: a table whose cells are coloured, hold their number and can be reached
 * with the arrow keys.  The colours are those of cividis: they look alike to readers with and
 * without colour blindness, and grow lighter with the number, so they are readable in grey.
 */
const HeatMap = (() => {
  const CIVIDIS = [
    [0, 34, 78], [8, 51, 112], [53, 69, 108], [79, 87, 108], [102, 105, 112], [125, 124, 120],
    [148, 142, 119], [174, 163, 113], [200, 184, 102], [229, 207, 82], [254, 232, 56],
  ];
  const CELL = { columns: 6, size: 50 }; // has room for "−0.12"; so many fit a screen of 400
  const SMALL = { width: 288, size: 24 }; // all cells together; one cell: numbers by pointer or key
  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  /** Colour of a number between low (0) and high (1). */
  function colour(share) {
    const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
    const i = Math.min(Math.floor(place), CIVIDIS.length - 2);
    return CIVIDIS[i].map((x, k) => Math.round(x + (place - i) * (CIVIDIS[i + 1][k] - x)));
  }

  /** Black or white, whichever differs more (luminance as in the web's contrast rules). */
  function inkOn(rgb) {
    const [r, g, b] = rgb
      .map(x => x / 255)
      .map(x => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
  }

  const minus = text => text.replace("-", "−");

  /** As in a cell: 0.12, or .012 where all numbers of a map are below 0.1. */
  function short(x, is_fine) {
    const text = is_fine ? x.toFixed(3).replace("0.", ".") : x.toFixed(2);
    return minus(Number(text) === 0 ? text.replace("-", "") : text);
  }

  /** As in a tip or a sum: so many digits, without zeros at the end. */
  const long = (x, digits = 6) => minus(String(Number(x.toPrecision(digits))));

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const count = n => Array.from({ length: n }, (_, i) => i);
  const heads = (n, scope) => count(n).map(i => element("th", { scope }, String(i)));

  const tip = element("div", { class: "tip", "aria-hidden": "true" });

  /** Show the tip below a cell, inside the window. */
  function showTip(cell, text) {
    if (!tip.isConnected) document.body.append(tip);
    const box = cell.getBoundingClientRect();
    tip.textContent = text;
    tip.style.display = "block";
    const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(box.left, right))}px`;
    tip.style.top = `${box.bottom + 6}px`;
  }

  function hideTip() {
    tip.style.display = "none";
  }

  class Picture {
    /**
     * name: letter on the page, "dS"; about: what it is; onPick(i, j): a cell is chosen;
     * describe(i, j): what the tip says after the number.
     */
    constructor(name, about, { onPick = null, describe = () => "" } = {}) {
      Object.assign(this, { name, about, onPick, describe, cells: [[]] });
      const label = `${name}, ${about}${onPick ? "; Enter chooses a cell" : ""}`;
      this.caption = element("figcaption");
      this.table = element("table", { role: "grid", "aria-label": label });
      this.ends = ["low", "middle", "high"].map(end => element("span", { class: end }));
      const bar = element("span", { class: "bar" });
      const stops = count(11).map(i => `rgb(${colour(i / 10)})`);
      bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
      const legend = element("div", { class: "legend", "aria-hidden": "true" }, bar, ...this.ends);
      this.figure = element("figure", { id: `map-${name}`, class: "map" });
      this.figure.append(this.caption, this.table, legend);
      this.figure.classList.toggle("is-clickable", Boolean(onPick));
      this.listen();
    }

    listen() {
      const on = (type, act) => this.table.addEventListener(type, event => {
        const cell = event.target.closest("td[data-row]");
        if (cell) act(cell, event);
      });
      on("mouseover", cell => this.tell(cell));
      on("focusin", cell => this.tell(cell));
      on("focusout", hideTip);
      on("click", cell => this.pick(cell));
      on("keydown", (cell, event) => this.press(cell, event));
      this.table.addEventListener("mouseleave", hideTip);
    }

    tell(cell) {
      const { row, column, value } = cell.dataset;
      const more = this.describe(Number(row), Number(column));
      showTip(cell, `${this.name}[${row}, ${column}] = ${long(Number(value))}${more}`);
    }

    /** Choose a cell, if the map can be clicked; Tab comes back to it. */
    pick(cell) {
      this.reach(cell);
      if (this.onPick) this.onPick(Number(cell.dataset.row), Number(cell.dataset.column));
    }

    /** Make a cell the only one of the map that Tab reaches. */
    reach(cell) {
      this.table.querySelector("td[tabindex='0']").tabIndex = -1;
      cell.tabIndex = 0;
    }

    press(cell, event) {
      const [down, right] = STEPS[event.key] || [0, 0];
      const next = this.cells[Number(cell.dataset.row) + down]?.[Number(cell.dataset.column) + right];
      if (event.key === "Escape") hideTip();
      if (event.key === "Enter" || event.key === " ") this.pick(cell);
      else if (!STEPS[event.key]) return;
      event.preventDefault();
      if (!next || next === cell) return;
      this.reach(next);
      next.focus();
    }

    /** Make the table anew; done only when its size has changed, so that focus is kept. */
    build(n_rows, n_columns) {
      const is_small = n_columns > CELL.columns;
      const size = is_small ? Math.min(SMALL.size, Math.floor(SMALL.width / n_columns)) : CELL.size;
      this.table.style.setProperty("--cell", `${size}px`);
      this.table.classList.toggle("is-small", is_small);
      this.table.classList.toggle("is-tight", size < SMALL.size);
      const cell = (i, j) => element("td", {
        role: "gridcell", tabindex: i + j ? -1 : 0, "data-row": i, "data-column": j,
      });
      this.rowHeads = heads(n_rows, "row");
      this.cells = count(n_rows).map(i => count(n_columns).map(j => cell(i, j)));
      const head = element("tr", {}, element("td"), ...heads(n_columns, "col"));
      const body = this.rowHeads.map((th, i) => element("tr", {}, th, ...this.cells[i]));
      this.table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    }

    /**
     * Draw a matrix.  low, high: ends of the colours; caption: nodes of the caption;
     * edges(i, j): {top, left}, where a line is drawn; isMarked(i, j): cells with a ring;
     * current: a row whose head stands out.
     */
    show(values, { low, high, caption, edges = () => ({}), isMarked = () => false, current = null }) {
      const n_columns = values[0].length;
      if (this.cells.length !== values.length || this.cells[0].length !== n_columns) {
        this.build(values.length, n_columns);
      }
      this.caption.replaceChildren(...caption);
      this.ends.forEach((end, k) => {
        end.textContent = long(low + (k / 2) * (high - low), 2);
      });
      this.rowHeads.forEach((head, i) => head.classList.toggle("is-current", i === current));
      values.forEach((row, i) => row.forEach((x, j) => {
        const cell = this.cells[i][j];
        const rgb = colour((x - low) / (high - low));
        cell.style.backgroundColor = `rgb(${rgb})`;
        cell.style.color = inkOn(rgb);
        cell.textContent = short(x, high < 0.0995);
        cell.dataset.value = String(x);
        if (this.onPick) cell.setAttribute("aria-selected", isMarked(i, j));
        cell.classList.toggle("is-marked", isMarked(i, j));
        cell.classList.toggle("edge-top", Boolean(edges(i, j).top));
        cell.classList.toggle("edge-left", Boolean(edges(i, j).left));
      }));
    }
  }

  window.addEventListener("scroll", hideTip, { passive: true });
  return { Picture, colour, element, long };
})();
