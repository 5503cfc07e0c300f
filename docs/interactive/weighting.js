"use strict";

/*
 * The mathematics of the page: numbers, forward, backward, counts.  No drawing here.
 *
 * A matrix is an array of rows.  Settings are
 *   seed, sample            which numbers; which example is shown
 *   d_m, d_n                size of W (inputs, outputs)
 *   d_r, d_c, d_k           size of the core, width of its factors
 *   variant, mode, gain     "non" "rc" "r" "c"; "block" "tile"; rho
 *   output, every           the clicked column of A; whether in every example
 *   d_aw, u                 width of the context, hidden units of a generator (counts only)
 */
const Weighting = (() => {
  const EXAMPLES = 3;
  const VARIANTS = ["non", "rc", "r", "c"];
  const MODES = ["block", "tile"];

  // Numbers.  Each depends on seed, array, example, row and column alone, so moving a slider keeps
  // those that stay.  They are tenths, so that a reader can calculate with what is shown.
  const NUMBERS = {
    R: { key: 1, limit: 20 },
    C: { key: 2, limit: 20 },
    P: { key: 3, limit: 20 },
    W: { key: 4, limit: 10 },
    H: { key: 5, limit: 10 },
    b: { key: 6, limit: 10 },
  };

  /** 32 bits to 32 bits: the last step of MurmurHash3. */
  function mix(bits) {
    let x = bits | 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return (x ^ (x >>> 16)) >>> 0;
  }

  /** A whole number from -limit to limit, divided by 10. */
  function number(seed, name, example, row, column) {
    const { key, limit } = NUMBERS[name];
    const bits = [seed, key, example, row, column].reduce((x, k) => mix(x + 0x9e3779b9 + k), 0);
    return ((bits % (2 * limit + 1)) - limit) / 10;
  }

  function draw(seed, name, example, n_rows, n_columns) {
    return matrix(n_rows, n_columns, (i, j) => number(seed, name, example, i, j));
  }

  // Matrices.
  const range = n => Array.from({ length: n }, (_, i) => i);
  const matrix = (n_rows, n_columns, entry) =>
    range(n_rows).map(i => range(n_columns).map(j => entry(i, j)));
  const transpose = A => A[0].map((_, j) => A.map(row => row[j]));
  const each = (f, ...As) =>
    As[0].map((row, i) => row.map((_, j) => f(...As.map(A => A[i][j]))));
  const sum = numbers => numbers.reduce((x, y) => x + y, 0);
  const times = (A, B) =>
    matrix(A.length, B[0].length, (i, j) => sum(B.map((row, k) => A[i][k] * row[j])));
  const plus = (A, B) => each((a, b) => a + b, A, B);

  const divisors = n => range(n).map(i => i + 1).filter(d => n % d === 0);

  /** The largest divisor of n that is not above d. */
  const nearestDivisor = (n, d) => divisors(n).filter(x => x <= d).pop();

  /** Settings whose core fits: divisors, and for "non" a core of the size of W. */
  function settle(settings) {
    const { d_m, d_n, d_r, d_c, output, variant } = settings;
    const is_whole = variant === "non";
    return {
      ...settings,
      d_r: is_whole ? d_m : nearestDivisor(d_m, d_r),
      d_c: is_whole ? d_n : nearestDivisor(d_n, d_c),
      output: Math.min(output, d_n - 1),
    };
  }

  /** Which factor is one matrix for all examples: "R", "C" or null. */
  const sharedFactor = variant => ({ r: "C", c: "R" })[variant] || null;

  /** The core row r(i), or column c(j), that an entry of S copies: derivations 3.2d, 3.2e. */
  const group = (i, length, n_groups, mode) =>
    mode === "tile" ? i % n_groups : Math.floor(i / (length / n_groups));

  const coreRow = (s, i) => group(i, s.d_m, s.d_r, s.mode);
  const coreColumn = (s, j) => group(j, s.d_n, s.d_c, s.mode);

  /** Rows and columns of S that copy Q[r][c]. */
  const copies = (s, r, c) => ({
    rows: range(s.d_m).filter(i => coreRow(s, i) === r),
    columns: range(s.d_n).filter(j => coreColumn(s, j) === c),
  });

  const sigmoid = x => 0.5 + 0.5 * Math.tanh(0.5 * x);

  /** R_b, C_b and P_b of one example; a shared factor is that of example 0. */
  function factors(s, example) {
    if (s.variant === "non") {
      return { R: null, C: null, P: draw(s.seed, "P", example, s.d_r, s.d_c) };
    }
    const shared = sharedFactor(s.variant);
    const R = draw(s.seed, "R", shared === "R" ? 0 : example, s.d_r, s.d_k);
    const C = draw(s.seed, "C", shared === "C" ? 0 : example, s.d_k, s.d_c);
    return { R, C, P: times(R, C) };
  }

  /** One example: factors, core, weighting matrix, weighted weights and output. */
  function forwardExample(s, example, layer) {
    const { R, C, P } = factors(s, example);
    const Q = each(p => s.gain * sigmoid(p), P);
    const S = matrix(s.d_m, s.d_n, (i, j) => Q[coreRow(s, i)][coreColumn(s, j)]);
    const V = each((x, w) => x * w, S, layer.W);
    const A = plus(times([layer.H[example]], V), layer.b)[0];
    return { R, C, P, Q, S, V, A };
  }

  /** All examples, and what they share: W, H (an example per row), b and A. */
  function forward(s) {
    const layer = {
      W: draw(s.seed, "W", 0, s.d_m, s.d_n),
      H: matrix(EXAMPLES, s.d_m, (b, i) => number(s.seed, "H", b, 0, i)),
      b: draw(s.seed, "b", 0, 1, s.d_n),
    };
    const examples = range(EXAMPLES).map(example => forwardExample(s, example, layer));
    return { ...layer, examples, A: examples.map(x => x.A) };
  }

  /** The adjoint of A: 1 at the clicked output of the shown example, or of every example. */
  const adjointOfA = s =>
    matrix(EXAMPLES, s.d_n, (b, j) => Number(j === s.output && (s.every || b === s.sample)));

  function backwardExample(s, example, values, dA) {
    const { R, C, Q } = values.examples[example];
    const dS = each((w, ij) => w * ij, values.W, times(transpose([values.H[example]]), [dA]));
    const dQ = matrix(s.d_r, s.d_c, (r, c) => {
      const { rows, columns } = copies(s, r, c);
      return sum(rows.flatMap(i => columns.map(j => dS[i][j])));
    });
    const dP = each((dq, q) => dq * q * (1 - q / s.gain), dQ, Q);
    if (s.variant === "non") return { dS, dQ, dP, dR: null, dC: null };
    return { dS, dQ, dP, dR: times(dP, transpose(C)), dC: times(transpose(R), dP) };
  }

  /** Adjoints of every example; that of a shared factor is the sum over the examples. */
  function backward(s, values) {
    const dA = adjointOfA(s);
    const examples = range(EXAMPLES).map(b => backwardExample(s, b, values, dA[b]));
    const shared = sharedFactor(s.variant);
    if (!shared) return examples;
    const total = examples.map(x => x[`d${shared}`]).reduce(plus);
    return examples.map(x => ({ ...x, [`d${shared}`]: total }));
  }

  /** Entries of the kernels of a generator with output width o, and of its biases. */
  function generator(s, o) {
    const dims = s.u ? [s.d_aw + s.d_m, s.u, o] : [s.d_aw + s.d_m, o];
    const pairs = range(dims.length - 1).map(i => [dims[i], dims[i + 1]]);
    return {
      kernels: sum(pairs.map(([x, y]) => x * y)),
      biases: sum(pairs.map(([, y]) => y)),
    };
  }

  /** What each generator writes: how many numbers, by name. */
  function generated({ variant, d_r, d_c, d_k }) {
    if (variant === "non") return { core: d_r * d_c };
    const widths = { row: d_r * d_k, column: d_k * d_c };
    if (variant === "r") delete widths.column;
    if (variant === "c") delete widths.row;
    return widths;
  }

  /** Parameters and multiplications per example, grouped or with S built: derivations 3.7. */
  function counts(s) {
    const { d_m, d_n, d_r, d_c, d_k, variant } = s;
    const parts = [{ part: "layer", parameters: (d_m + 1) * d_n, work: d_m * d_n }];
    for (const [name, width] of Object.entries(generated(s))) {
      const { kernels, biases } = generator(s, width);
      parts.push({ part: `${name} generator`, parameters: kernels + biases, work: kernels });
    }
    if (variant !== "non") {
      const shared = { r: d_k * d_c, c: d_r * d_k }[variant] || 0;
      if (shared) parts.push({ part: "shared factor", parameters: shared, work: 0 });
      parts.push({ part: "product RC", parameters: 0, work: d_r * d_k * d_c });
    }
    const form = d_r * d_n <= d_c * d_m ? "row" : "column";
    const kept = { row: d_r * d_n, column: d_c * d_m, built: d_m * d_n };
    parts.push({ part: "weighting", parameters: 0, work: kept[form], work_built: kept.built });
    const rows = parts.map(x => ({ ...x, work_built: x.work_built ?? x.work }));
    const total = key => sum(rows.map(x => x[key]));
    return {
      parts: rows,
      form,
      kept,
      parameters: total("parameters"),
      grouped: total("work"),
      built: total("work_built"),
      generated: sum(Object.values(generated(s))),
    };
  }

  return {
    EXAMPLES, VARIANTS, MODES, range, divisors, settle, sharedFactor,
    coreRow, coreColumn, copies, forward, backward, counts,
  };
})();
