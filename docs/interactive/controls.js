"use strict";

/* Sliders, choices and the settings at which each example begins. */
const Controls = (() => {
  const { range, divisors, EXAMPLES } = Weighting;
  const { element } = HeatMap;
  const byId = id => document.getElementById(id);

  const START = {
    seed: 1, sample: 0, d_m: 6, d_n: 4, d_r: 2, d_c: 2, d_k: 1, variant: "r", mode: "block",
    gain: 1, output: 0, every: false, d_aw: 8, u: 16, row: 0, column: 0,
  };

  /** What a button changes, given the settings. */
  const PRESETS = {
    start: () => START,
    outputs: s => ({ variant: "c", d_r: 1, d_c: s.d_n, d_k: 1, gain: 2 }),
    inputs: s => ({ variant: "r", d_r: s.d_m, d_c: 1, d_k: 1, gain: 2 }),
    whole: () => ({ variant: "non" }),
  };

  const CHOICES = {
    variant: { non: "non: all of P", rc: "rc: R and C", r: "r: R only", c: "c: C only" },
    mode: { block: "block", tile: "tile" },
  };

  const from1 = n => range(n).map(i => i + 1);

  // A slider moves along a list of values; that of a core's size has the divisors alone.
  const SLIDERS = [
    { key: "d_m", place: "sizes", label: "inputs, rows of W", values: () => from1(16) },
    { key: "d_n", place: "sizes", label: "outputs, columns of W", values: () => from1(16) },
    { key: "d_r", place: "sizes", label: "rows of the core", divides: "d_m" },
    { key: "d_c", place: "sizes", label: "columns of the core", divides: "d_n" },
    { key: "d_k", place: "sizes", label: "width of the factors", values: () => from1(4) },
    { key: "gain", place: "numbers", label: "gain ρ", values: () => from1(40).map(i => i / 10) },
    { key: "sample", place: "numbers", label: "example shown", values: () => range(EXAMPLES) },
    { key: "seed", place: "numbers", label: "seed of the numbers", values: () => from1(50) },
    { key: "d_aw", place: "costs", label: "width of the context", values: () => from1(32) },
    { key: "u", place: "costs", label: "hidden units, 0: none", values: () => range(65) },
  ];
  const OF_FACTORS = ["d_r", "d_c", "d_k"];

  const valuesOf = ({ divides, values }, s) => (divides ? divisors(s[divides]) : values());

  /** "d_m" with its letter in italics and the index below; nothing for a word. */
  function symbol(key) {
    const [letter, index] = key.split("_");
    if (letter.length > 1) return [];
    return [element("i", {}, letter, ...(index ? [element("sub", {}, index)] : [])), " "];
  }

  function makeSlider(slider, settings, change) {
    const { key, label, place, divides } = slider;
    const input = element("input", { type: "range", id: key, min: 0, step: 1 });
    const output = element("output", { for: key });
    const offered = element("span", { class: "offered", id: `${key}-offered` });
    const text = element("label", { for: key }, ...symbol(key), label);
    const box = element("div", { class: "slider" }, text, output, input);
    if (divides) {
      box.append(offered);
      input.setAttribute("aria-describedby", offered.id);
    }
    input.addEventListener("input", () =>
      change({ [key]: valuesOf(slider, settings())[Number(input.value)] }));
    byId(place).append(box);
    return { ...slider, input, output, offered, box };
  }

  function makeChoices(key, change) {
    const labels = Object.entries(CHOICES[key]).map(([value, label]) => {
      const input = element("input", { type: "radio", name: key, value, id: `${key}-${value}` });
      input.addEventListener("change", () => change({ [key]: value }));
      return element("label", {}, input, label);
    });
    byId(key).append(...labels);
  }

  function showSlider({ key, divides, input, output, offered, box, ...slider }, s) {
    const values = valuesOf({ divides, ...slider }, s);
    const is_off = s.variant === "non" && OF_FACTORS.includes(key);
    input.max = values.length - 1;
    input.value = values.indexOf(s[key]);
    input.disabled = is_off;
    input.setAttribute("aria-valuetext", s[key]);
    output.textContent = s[key];
    box.classList.toggle("is-off", is_off);
    if (divides) offered.textContent = `divisors of ${s[divides]}: ${values.join(", ")}`;
  }

  /** Settings are open beside the pictures, and closed above them where there is no room. */
  function openIfWide() {
    const wide = window.matchMedia("(min-width: 960px)");
    const follow = () => {
      document.querySelector(".settings").open = wide.matches;
    };
    wide.addEventListener("change", follow);
    follow();
  }

  /** Build all controls; return the function that shows settings in them. */
  function make(settings, change) {
    const sliders = SLIDERS.map(slider => makeSlider(slider, settings, change));
    for (const key of Object.keys(CHOICES)) makeChoices(key, change);
    byId("every").addEventListener("change", event => change({ every: event.target.checked }));
    for (const button of document.querySelectorAll("[data-preset]")) {
      button.addEventListener("click", () => change(PRESETS[button.dataset.preset](settings())));
    }
    openIfWide();
    return s => {
      for (const slider of sliders) showSlider(slider, s);
      for (const key of Object.keys(CHOICES)) byId(`${key}-${s[key]}`).checked = true;
      byId("every").checked = s.every;
      byId("summary").textContent =
        `${s.variant}, ${s.mode}, W ${s.d_m} × ${s.d_n}, core ${s.d_r} × ${s.d_c}`;
    };
  }

  return { START, make };
})();
