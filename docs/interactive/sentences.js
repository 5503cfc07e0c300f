"use strict";

/* What the page says about its numbers, and the equations that depend on the settings. */
const Sentences = (() => {
  const { long } = HeatMap;
  const byId = id => document.getElementById(id);

  /** Symbols in italics, with what follows "_" below, and the d of an adjoint upright: "dR_b". */
  const math = text => text.replace(/\b(d?)([A-Z]|[a-z](?=_))(?:_(\w+))?\b/g,
    (_, d, letter, index) => `${d}<i>${letter}${index ? `<sub>${index}</sub>` : ""}</i>`);

  const WHICH_STAYS = "Change the example and see which picture stays.";
  const FACTORS = {
    non: "Variant <b>non</b> has no factors: the generator, a small network, writes P as a whole for " +
      "each example, as large as W. The sliders of the core rest.",
    rc: "Variant <b>rc</b>: both R and C are generated anew for each example.",
    r: "Variant <b>r</b>: R is generated anew for each example; C is learned once and shared by all. " +
      WHICH_STAYS,
    c: "Variant <b>c</b>: C is generated anew for each example; R is learned once and shared by all. " +
      WHICH_STAYS,
  };
  const MODE = {
    block: "Block: the copies of an entry lie side by side, with a line around them.",
    tile: "Tile: the core is laid down again and again; each piece between lines is a whole core.",
  };

  // Equations that depend on the settings, with their numbers in the derivations.
  const PRODUCT = {
    non: "P_b = reshape(G(U_b))", rc: "P_b = R_b C_b", r: "P_b = R_b C_share", c: "P_b = R_share C_b",
  };
  const REPEAT = {
    block: ["S_ij = Q[⌊<i>i</i> / f_r⌋, ⌊<i>j</i> / f_c⌋]", "3.2d"],
    tile: ["S_ij = Q[<i>i</i> mod d_r, <i>j</i> mod d_c]", "3.2e"],
  };
  const SUM = "Σ<sub>b</sub>";
  const FACTORS_BACK = {
    non: ["", ""],
    rc: ["dR_b = dP_b C_b<sup>⊤</sup>,  dC_b = R_b<sup>⊤</sup> dP_b", "3.4k"],
    r: [`dR_b = dP_b C_share<sup>⊤</sup>,  dC_share = ${SUM} R_b<sup>⊤</sup> dP_b`, "3.4l"],
    c: [`dC_b = R_share<sup>⊤</sup> dP_b,  dR_share = ${SUM} dP_b C_b<sup>⊤</sup>`, "3.4m"],
  };

  function say(id, html) {
    byId(id).innerHTML = html;
    byId(id).hidden = !html;
  }

  /** Write an equation and a link to it; no equation without text. */
  function sayEquation(name, [text, number]) {
    say(`eq-${name}`, math(text));
    const link = byId(`cite-${name}`);
    link.hidden = !text;
    link.href = `../derivations/weighting.html#equation-${number.replace(".", "-")}`;
    link.textContent = `(${number})`;
  }

  function gateNote({ d_m, d_n, d_r, d_c }) {
    if (d_r === 1 && d_c === 1) return math("The core is one number: S scales the whole layer.");
    if (d_r === d_m && d_c === d_n) return math("Nothing is copied: S is the core.");
    if (d_r === 1 && d_c === d_n) {
      return math("All rows of S are alike, so whole columns of W are scaled: a <b>gate on the " +
        "outputs</b> ") + "(<a href=\"../derivations/choices.html#equation-3-8a\">3.8a</a>).";
    }
    if (d_c === 1 && d_r === d_m) {
      return math("All columns of S are alike, so whole rows of W are scaled: a <b>gate on the " +
        "inputs</b>.");
    }
    return "";
  }

  function rankNote({ variant, d_r, d_c, d_k }) {
    const bound = Math.min(d_r, d_c);
    if (variant === "non" || d_k <= bound) return "";
    return math(`d_k = ${d_k} is above min(d_r, d_c) = ${bound}: it cannot raise the rank of P, it ` +
      "only costs.");
  }

  const list = (word, numbers) => `${word}${numbers.length > 1 ? "s" : ""} ${numbers.join(", ")}`;
  const factor = x => (x < 0 ? `(${long(x, 4)})` : long(x, 4));
  const at = (name, i, j) => `<i>${name}</i>[${i}, ${j}]`;

  function copiesSentence(s, Q, { rows, columns }) {
    const n = rows.length * columns.length;
    return `${at("Q", s.row, s.column)} = ${long(Q[s.row][s.column])} is copied ` +
      `${math("f_r f_c")} = ${rows.length} · ${columns.length} = ${n} time${n > 1 ? "s" : ""}: to ` +
      `${list("row", rows)} and ${list("column", columns)} of <i>S</i>.`;
  }

  function outputSentence({ sample: b, output: j }, values) {
    const { V, A } = values.examples[b];
    const terms = values.H[b].map((h, i) => `${factor(V[i][j])} · ${factor(h)}`);
    return `${at("A", b, j)} = ${terms.join(" + ")} + ${factor(values.b[0][j])} = ${long(A[j])}`;
  }

  /** How the ringed entry of dQ comes about. */
  function sumSentence({ row, column, output }, { dS, dQ }, { rows, columns }) {
    const name = `d${at("Q", row, column)}`;
    if (!columns.includes(output)) {
      return `${name} = 0: no copy of ${at("Q", row, column)} weighs column ${output}.`;
    }
    const terms = rows.map(i => factor(dS[i][output])).join(" + ");
    const sum = rows.length > 1 ? `${terms} = ${long(dQ[row][column])}` : long(dQ[row][column]);
    const rest = columns.length > 1 ? ", and zeros from the other columns" : "";
    return `${name} = ${sum}: the sum over its copies in column ${output}${rest}.`;
  }

  function sizeSentence({ variant, d_m, d_n, d_r, d_c, d_k }, counts) {
    const share = (d_r / d_m) * (d_c / d_n) * d_k;
    const measure = variant === "non" ? ""
      : math(` The paper's measure (d_r/d_m)(d_c/d_n) d_k is ${long(share, 3)}.`);
    const n = counts.generated;
    return `Generated per example: ${n} number${n > 1 ? "s" : ""} for a matrix of ${d_m * d_n}.` +
      measure;
  }

  function show(s, values, adjoints, counts) {
    const copies = Weighting.copies(s, s.row, s.column);
    sayEquation("product", [PRODUCT[s.variant], "3.2c"]);
    sayEquation("repeat", REPEAT[s.mode]);
    sayEquation("factors", FACTORS_BACK[s.variant]);
    say("text-factors", math(FACTORS[s.variant]));
    say("text-mode", MODE[s.mode]);
    say("note-rank", rankNote(s));
    say("note-gate", gateNote(s));
    say("text-copies", copiesSentence(s, values.examples[s.sample].Q, copies));
    say("text-output", outputSentence(s, values));
    say("text-clicked", `d${at("A", s.every ? "<i>b</i>" : s.sample, s.output)} = 1`);
    say("text-sum", sumSentence(s, adjoints[s.sample], copies));
    say("text-size", sizeSentence(s, counts));
  }

  return { show };
})();
