"""The page "Weighting matrices by hand" in a real browser, against the package.

A script moves the sliders, clicks the cells and reads what the tables then hold; the test draws the
same numbers by its own version of the page's generator and gives them to the layer of the package.
"""

import json
import re
import shutil
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_BROWSER, browse
from interactive_reference import EXAMPLES, START, actions, draw_settings, expected_maps, make_layer
from numpy.testing import assert_allclose
from pages import DOCS

from midpg_np.layers.dwm import GENERATORS
from midpg_np.layers.modulated import cheaper_form
from midpg_np.layers.modulated_layer import divisors
from midpg_np.layers.repeat import repeat
from midpg_np.tree import tree_size

pytestmark = NEEDS_BROWSER

PAGE = DOCS / "interactive"
CASES = [
    draw_settings(np.random.default_rng([k, i]), variant, mode)
    for k in range(3)
    for i, (variant, mode) in enumerate(
        (variant, mode) for variant in GENERATORS for mode in ("block", "tile")
    )
]

# Each control: a move from the start, and what must stay as it is (all else must change).
FORWARD = {"R", "C", "P", "Q", "S", "V", "A"}
GIVEN = {"W", "H", "bias"}
STEPS = {
    "d_m": (["slide", "d_m", 7], {"bias", "R", "C", "P", "Q"}),
    "d_n": (["slide", "d_n", 5], {"H", "R", "C", "P", "Q", "dQ", "dP", "dR", "dC"}),
    "d_r": (["slide", "d_r", 2], GIVEN | {"C", "dS"}),
    "d_c": (["slide", "d_c", 2], GIVEN | {"R", "dS", "dR"}),
    "d_k": (["slide", "d_k", 1], GIVEN | {"dS", "dQ"}),
    "gain": (["slide", "gain", 19], GIVEN | {"R", "C", "P", "dS", "dQ"}),
    "sample": (["slide", "sample", 1], GIVEN | {"C", "A"}),
    "seed": (["slide", "seed", 1], set()),
    "variant": (["click", "#variant-non"], GIVEN | {"dS"}),
    "mode": (["click", "#mode-tile"], GIVEN | {"R", "C", "P", "Q", "dS"}),
    "output": (["cell", "A", 0, 2], GIVEN | FORWARD),
    "every": (["every", True], GIVEN | FORWARD | {"dS", "dQ", "dP", "dR"}),
    "d_aw": (["slide", "d_aw", 3], GIVEN | FORWARD | {"dS", "dQ", "dP", "dR", "dC"}),
    "u": (["slide", "u", 0], GIVEN | FORWARD | {"dS", "dQ", "dP", "dR", "dC"}),
}


def frame(width, work):
    """Put the driver, with what it has to do, into a copy of the page in a frame of a width."""
    large = [["slide", "d_m", 15], ["slide", "d_n", 15], ["slide", "d_k", 3]]
    work = json.dumps({"name": f"found-{width}", "large": large, **work})
    driver = Path(__file__).with_name("interactive_driver.js").read_text(encoding="utf-8")
    script = f"<script>const WORK = {work};\n{driver}</script></body>"
    text = (PAGE / "index.html").read_text(encoding="utf-8").replace("</body>", script)
    return f'<iframe width="{width}" height="900" srcdoc="{escape(text)}"></iframe>'


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Open the page once, narrow and wide side by side; return what the scripts found."""
    folder = tmp_path_factory.mktemp("interactive")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    steps = {name: move for name, (move, _) in STEPS.items()}
    work = {"cases": [actions(s) for s in CASES], "steps": steps}
    frames = [frame(400, {}), frame(1400, work)]
    page = folder / "frame.html"
    page.write_text(f"<!doctype html><html><body>{''.join(frames)}</body></html>", encoding="utf-8")
    document, messages = browse(page, tmp_path_factory.mktemp("browser") / "profile")
    found = {
        int(width): json.loads(unescape(text))
        for width, text in re.findall(r'<pre id="found-(\d+)">(.*?)</pre>', document, re.S)
    }
    assert set(found) == {400, 1400}, messages
    return {**found, "messages": messages}


@pytest.fixture(scope="module", params=range(len(CASES)), ids=lambda k: f"case{k}")
def case(request, seen):
    """Settings, and what the page shows at them."""
    return CASES[request.param], seen[1400]["cases"][request.param]


# Values, gradients and counts.


def test_values_and_gradients_are_those_of_the_package(case):
    s, page = case
    expected = expected_maps(s)
    assert set(page["values"]) == set(expected)
    for name, matrix in expected.items():
        assert_allclose(page["values"][name], matrix, rtol=0, atol=1e-12, err_msg=name)


def test_the_page_starts_with_its_settings(seen):
    for width in (400, 1400):
        page = seen[width]["start"]
        for name, matrix in expected_maps(START).items():
            assert_allclose(page["values"][name], matrix, rtol=0, atol=1e-12, err_msg=name)


def test_cells_hold_their_numbers_as_text(case):
    _, page = case
    for name, texts in page["texts"].items():
        shown = [[float(text.replace("−", "-")) for text in row] for row in texts]
        step = 0.01 if np.abs(page["values"][name]).max() >= 0.1 else 0.001
        assert_allclose(shown, page["values"][name], rtol=0, atol=step * 0.501, err_msg=name)


def test_counts_are_those_of_the_package(case):
    s, page = case
    layer = make_layer(s, s["d_aw"] + s["d_m"], (s["u"],) if s["u"] else ())
    params = layer.init(np.random.default_rng(0))
    lines = {name: [int(text) for text in row] for name, *row in page["counts"]}
    whole = s["d_m"] * s["d_n"]
    built = 2 * whole + layer.weighting.multiply_adds
    assert lines["together"] == [tree_size(params), layer.multiply_adds, built]
    assert lines["layer"] == [tree_size({"W": params["W"], "b": params["b"]}), whole, whole]
    for name in GENERATORS[s["variant"]]:
        assert lines[name.replace("_", " ")][0] == tree_size(params["weighting"][name])
    shared = {k: v for k, v in params["weighting"].items() if k.endswith("share")}
    assert lines.get("shared factor", [0])[0] == tree_size(shared)
    form = cheaper_form(s["d_m"], s["d_n"], s["d_r"], s["d_c"])
    least = layer.multiply_adds - whole - layer.weighting.multiply_adds
    assert lines[f"weighting ({form} form)"] == [0, least, whole]
    assert page["kept"] == [whole, s["d_r"] * s["d_n"], s["d_c"] * s["d_m"]]
    assert np.sum(list(lines.values()), axis=0).tolist() == [2 * n for n in lines["together"]]


def test_a_clicked_cell_of_s_marks_its_core_entry_and_all_copies(case):
    s, page = case
    core = np.arange(s["d_r"] * s["d_c"]).reshape(1, s["d_r"], s["d_c"])
    copied = repeat(core, s["d_m"], s["d_n"], s["mode"])[0]
    entry = copied[s["d_m"] // 2, s["d_n"] // 2]
    assert page["marked"]["Q"] == (core[0] == entry).astype(int).tolist()
    assert page["marked"]["S"] == (copied == entry).astype(int).tolist()
    assert page["marked"]["dS"] == page["marked"]["S"]
    n_copies = np.count_nonzero(copied == entry)
    assert f"= {n_copies} time" in page["result"]["text-copies"]


def test_the_clicked_outputs_are_marked(case):
    s, page = case
    marked = np.zeros((EXAMPLES, s["d_n"]), int)
    marked[slice(None) if s["every"] else s["sample"], s["output"]] = 1
    assert page["marked"]["A"] == marked.tolist()


def test_sentences_end_with_the_numbers_of_the_maps(case):
    s, page = case
    last = {name: text.replace("−", "-") for name, text in page["result"].items()}
    output = float(last["text-output"].rsplit("= ", 1)[1])
    assert output == pytest.approx(page["values"]["A"][s["sample"]][s["output"]], rel=1e-5)
    core = np.sum(np.multiply(page["values"]["dQ"], page["marked"]["dQ"]))
    total = float(re.search(r".*= (-?[\d.e-]+)", last["text-sum"].split(":")[0])[1])
    assert total == pytest.approx(core, rel=1e-5, abs=1e-9)


def test_the_page_tells_which_factor_is_shared(case):
    s, page = case
    shared = {"r": "C", "c": "R"}.get(s["variant"])
    for name in page["values"].keys() & {"R", "C", "dR", "dC"}:
        (tag,) = page["tags"][name]
        assert tag.startswith("shared") == (name[-1] == shared)


# Controls.


@pytest.mark.parametrize("name", STEPS)
def test_a_control_changes_what_depends_on_it_and_nothing_else(name, seen):
    before, after = (seen[1400]["steps"][name][when] for when in ("before", "after"))
    same = {key for key in before["values"] if before["values"][key] == after["values"].get(key)}
    assert same == STEPS[name][1]
    counts_stay = {"gain", "sample", "seed", "mode", "output", "every"}
    assert (before["counts"] == after["counts"]) == (name in counts_stay)


def test_only_divisors_are_offered(case):
    s, page = case
    shown = {name: page["shown"][name] for name in page["shown"] if name in s}
    assert shown == {name: s[name] for name in shown} and len(shown) == 10
    for text, width in zip(page["offered"], (s["d_m"], s["d_n"]), strict=True):
        assert text == f"divisors of {width}: {', '.join(map(str, divisors(width)))}"
    assert page["off"] == (["d_r", "d_c", "d_k"] if s["variant"] == "non" else [])


def test_a_rank_that_cannot_be_is_told(case):
    s, page = case
    too_wide = s["variant"] != "non" and s["d_k"] > min(s["d_r"], s["d_c"])
    assert ("note-rank" in page["result"]) == too_wide


def test_keys_move_through_a_map_and_choose(seen):
    found = seen[1400]["keyboard"]
    assert found["at"] == ["3", "1"]
    S = expected_maps(START)["S"]
    assert found["tip"] == f"S[3, 1] = {S[3, 1]:.6g}, a copy of Q[1, 0]"
    assert found["marked"]["Q"] == [[0, 0], [1, 0]] and found["kept_focus"]
    assert (found["shown"], found["hidden"]) == ("block", "none")


def test_controls_and_maps_have_names(seen):
    labels = seen[1400]["labels"]
    assert len(labels["inputs"]) == 17 and all(text.strip() for _, text in labels["inputs"])
    assert len(labels["groups"]) == 6 and all(labels["groups"])
    assert len(labels["grids"]) == 15
    assert all(name and n_stops == 1 for name, n_stops in labels["grids"])
    assert all(labels["spoken"]) and labels["boxes_by_keyboard"]
    assert len(labels["ids"]) == len(set(labels["ids"]))


# The page.


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("size", ["layout", "large"])
def test_the_page_fits_its_width(width, size, seen):
    layout = seen[width][size]
    assert layout["inner_width"] == width and layout["scroll_width"] <= width
    assert layout["outside"] == [] and layout["cut_off"] == []
    assert layout["smallest_font"] >= 14 and layout["slider_width"] > 200
    assert layout["open"] == (width == 1400 or size == "large")


def test_it_loads_without_errors_and_from_its_folder_alone(seen):
    assert not re.search("CONSOLE", seen["messages"]), seen["messages"]
    names = {path.name for path in PAGE.iterdir()} - {"index.html"}
    for width in (400, 1400):
        files = [name for name in seen[width]["resources"] if not name.startswith("data:")]
        assert all(name.startswith("file:") for name in files)
        assert {name.rsplit("/", 1)[1] for name in files} <= names
    for path in PAGE.iterdir():
        assert not re.search(r"https?:|//[\w.]+\.\w+/", path.read_text(encoding="utf-8")), path


def test_equations_have_their_numbers_in_the_derivations(case):
    _, page = case
    assert len(page["links"]) >= 10
    for target, text in page["links"]:
        name, kind, number = re.fullmatch(
            r"\.\./derivations/(\w+)\.html#(\w+)-([\w-]+)", target
        ).groups()
        number = number.replace("-", ".", 1)
        source = (DOCS / "derivations" / f"{name}.md").read_text(encoding="utf-8")
        assert text.strip("()") == number
        assert (f"\\tag{{{number}}}" if kind == "equation" else f"## {number} ") in source


def luminance(rgb):
    """Return the luminance of colours (..., 3), 0 to 255, by the rules of the web."""
    x = np.asarray(rgb) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def contrast(one, other):
    """Return the ratio of contrast of two colours, 1 to 21."""
    low, high = np.sort([luminance(one), luminance(other)], axis=0)
    return (high + 0.05) / (low + 0.05)


def test_maps_are_readable_in_grey_and_their_numbers_on_every_colour(seen):
    colours = seen[1400]["colours"]
    assert np.all(np.diff(luminance(colours["ramp"])) > 0)
    assert contrast(colours["ramp"][0], colours["ramp"][-1]) > 10
    pairs = np.array([[re.findall(r"\d+", c) for c in pair] for pair in colours["cells"]], float)
    assert len(pairs) > 100 and contrast(pairs[:, 0], pairs[:, 1]).min() >= 4.5


def test_text_is_readable_in_light_and_dark():
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--([\w-]+): #(\w+);", s))
        for s in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(schemes) == 2
    for scheme in schemes:
        rgb = {
            name: [int(code[i : i + 2], 16) for i in (0, 2, 4)]
            for name, code in (
                (n, c if len(c) == 6 else "".join(2 * x for x in c)) for n, c in scheme.items()
            )
        }
        for ink, paper in (
            *(("ink", "page"), ("ink", "card"), ("ink", "tint"), ("soft", "card")),
            *(("accent", "page"), ("accent", "card"), ("accent", "tint")),
        ):
            assert contrast(rgb[ink], rgb[paper]) >= 4.5, (ink, paper)
