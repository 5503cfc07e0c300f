/*
 * Put into a copy of the page by test_interactive.py, behind "const WORK = {...}": moves the sliders,
 * clicks the cells, reads what the page then shows, and writes it into the page around it.
 */
window.addEventListener("load", () => {
  const all = (selector, where = document) => [...where.querySelectorAll(selector)];
  const one = selector => document.querySelector(selector);
  const cell = (map, i, j) => one(`#map-${map} td[data-row="${i}"][data-column="${j}"]`);
  const press = key => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const slide = (id, index) => {
    one(`#${id}`).value = index;
    one(`#${id}`).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const act = ([kind, ...what]) => {
    if (kind === "slide") slide(...what);
    if (kind === "click") one(what[0]).click();
    if (kind === "cell") cell(...what).click();
    if (kind === "every" && one("#every").checked !== what[0]) one("#every").click();
  };
  const table = (map, read) => all("tbody tr", map).map(row => all("td", row).map(read));
  const seen = () => all(".map").filter(map => map.offsetParent);
  const ofMaps = read => Object.fromEntries(seen().map(map => [map.id.slice(4), read(map)]));
  const read = () => ({
    values: ofMaps(map => table(map, td => Number(td.dataset.value))),
    texts: ofMaps(map => table(map, td => td.textContent)),
    marked: ofMaps(map => table(map, td => Number(td.classList.contains("is-marked")))),
    tags: ofMaps(map => all(".tag", map).map(tag => tag.textContent)),
    counts: all("#counts tbody tr").map(row => [...row.cells].map(c => c.textContent)),
    kept: all("#bars dd").map(dd => Number(dd.textContent)),
    shown: Object.fromEntries(all("output").map(o => [o.htmlFor.value, Number(o.textContent)])),
    off: all("input:disabled").map(input => input.id),
    result: Object.fromEntries(all(".result, .note").filter(p => p.offsetParent)
      .map(p => [p.id, p.textContent])),
    offered: all(".offered").map(text => text.textContent),
    links: all("main a").filter(a => a.offsetParent)
      .map(a => [a.getAttribute("href"), a.textContent]),
  });
  const layout = () => ({
    inner_width: innerWidth,
    scroll_width: document.documentElement.scrollWidth,
    outside: all("body *").filter(e => !e.matches(".skip") && !e.closest(".scroll")
      && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80)),
    // A map with small cells has its numbers in the tip alone: size 0.
    smallest_font: Math.min(...all("body *").map(e => parseFloat(getComputedStyle(e).fontSize))
      .filter(size => size > 0)),
    cut_off: seen().filter(map => !one(`#${map.id} .is-small`)).flatMap(map => all("td", map))
      .filter(td => td.scrollWidth > td.clientWidth + 1).map(td => td.textContent),
    slider_width: Math.min(...all("#steps input[type=range]").map(input => input.clientWidth)),
    open: one(".settings").open,
  });
  const keyboard = () => {
    cell("S", 0, 0).focus();
    ["ArrowUp", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown"].forEach(press);
    const at = document.activeElement.dataset;
    const tip = one(".tip");
    const found = { at: [at.row, at.column], tip: tip.textContent, shown: tip.style.display };
    press("Enter");
    found.marked = read().marked;
    found.kept_focus = document.activeElement === cell("S", at.row, at.column);
    press("Escape");
    return { ...found, hidden: tip.style.display };
  };
  const labels = () => ({
    inputs: all("input").map(input => [input.id, [...input.labels].map(l => l.textContent).join()]),
    groups: all("[type=radio]")
      .map(input => input.closest("fieldset").querySelector("legend").textContent),
    grids: all("table[role=grid]")
      .map(grid => [grid.getAttribute("aria-label"), all("td[tabindex='0']", grid).length]),
    spoken: all("[type=range]").map(input => input.getAttribute("aria-valuetext")),
    boxes_by_keyboard: all(".scroll").every(e => e.tabIndex === 0),
    ids: all("[id]").map(e => e.id),
  });
  const colours = () => ({
    ramp: Array.from({ length: 101 }, (_, i) => HeatMap.colour(i / 100)),
    cells: seen().flatMap(map => all("td[data-row]", map)).map(td => getComputedStyle(td))
      .map(style => [style.color, style.backgroundColor]),
  });
  const found = { start: read(), layout: layout(), labels: labels(), colours: colours() };
  if (WORK.cases) {
    found.keyboard = keyboard();
    found.steps = Object.fromEntries(Object.entries(WORK.steps).map(([name, move]) => {
      act(["click", "[data-preset=start]"]);
      const before = read();
      act(move);
      return [name, { before, after: read() }];
    }));
    found.cases = WORK.cases.map(actions => {
      actions.forEach(act);
      return read();
    });
  }
  act(["click", "[data-preset=start]"]);
  WORK.large.forEach(act);
  one(".settings").open = true;
  found.large = layout();
  found.resources = performance.getEntriesByType("resource").map(r => r.name);
  const place = parent.document.createElement("pre");
  place.id = WORK.name;
  place.textContent = JSON.stringify(found);
  parent.document.body.append(place);
});
