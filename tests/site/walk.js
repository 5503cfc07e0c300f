/*
 * Loads pages of the site into a frame, one after the other, and sends what it saw to the test.
 * JOB.pages: addresses.  JOB.widths: of the frame, in pixels.  JOB.until: a selector to wait for.
 */
const frame = document.createElement("iframe");
document.body.append(frame);

const pause = ms => new Promise(done => setTimeout(done, ms));
const drawn = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));

async function open(page) {
  await new Promise(done => {
    frame.onload = done;
    frame.src = page;
  });
  const math = frame.contentWindow.MathJax;
  if (math && math.startup) await math.startup.promise;
  for (let i = 0; JOB.until && i < 200 && !frame.contentDocument.querySelector(JOB.until); i++) {
    await pause(100);
  }
}

const scrolls = element => {
  for (let e = element.parentElement; e; e = e.parentElement) {
    if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return true;
  }
  return false;
};

// Elements that hold text themselves; formulas have their own sizes.
const texts = root => [...root.querySelectorAll("article *, .bd-main h1")].filter(e =>
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())
  && !e.closest("mjx-container, svg, sup, sub, script, style, .headerlink") && e.offsetParent);

function layout(root) {
  const width = frame.contentWindow.innerWidth;
  const outside = [...root.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && (box.right > width + 1 || box.left < -1)
      && !e.closest("mjx-assistive-mml, dialog, .skip") && !scrolls(e);
  });
  return {
    inner: width,
    scroll: root.documentElement.scrollWidth,
    outside: outside.slice(0, 5).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`),
    font: Math.min(99, ...texts(root).map(e => parseFloat(getComputedStyle(e).fontSize))),
  };
}

function read(root) {
  const all = selector => [...root.querySelectorAll(selector)];
  const here = location.origin;
  return {
    heading: all("h1").map(e => e.firstChild.textContent.trim())[0] || "",
    formulas: all(".math").length,
    typeset: all(".math").filter(e => e.querySelector("mjx-container")).length,
    wrong: all("mjx-merror, [data-mjx-error]").map(e => e.textContent),
    raw: all("article p, article li, article td, article dd")
      .filter(e => !e.querySelector("pre, code") && /\$\$|\\\[|\\\(|\\tag/.test(e.textContent))
      .map(e => e.textContent.slice(0, 80)),
    images: all("img").filter(e => !e.complete || !e.naturalWidth).map(e => e.src),
    elsewhere: frame.contentWindow.performance.getEntriesByType("resource")
      .map(r => r.name).filter(name => !name.startsWith(here) && !name.startsWith("data:")),
    found: JOB.until ? all(JOB.until).map(e => e.textContent.trim().slice(0, 200)) : [],
  };
}

(async () => {
  const seen = {};
  for (const page of JOB.pages) {
    frame.width = JOB.widths[0];
    frame.height = 900;
    try {
      await open(page);
      seen[page] = read(frame.contentDocument);
      seen[page].layouts = {};
      for (const width of JOB.widths) {
        frame.width = width;
        await drawn();
        seen[page].layouts[width] = layout(frame.contentDocument);
      }
    } catch (error) {
      seen[page] = { failed: String(error) };
    }
  }
  await fetch("/done", { method: "POST", body: JSON.stringify(seen) });
})();
