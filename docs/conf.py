"""How Sphinx builds the site; the command stands in site.md."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT)]
# Tutorials run in processes of their own, one per core, and find both there.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])

from pygments.lexers import PythonLexer, TextLexer  # noqa: E402

import midpg_np  # noqa: E402

project = "midpg_np"
copyright = "the authors of midpg_np, Apache-2.0"
release = version = midpg_np.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
    "docstrings",
    "equation_index",
    "flowcharts",
    "navigation",
    "notebooks",
    "source_links",
    "tutorial_pages",
]
exclude_patterns = ["_build", "interactive", "tutorials/GALLERY_HEADER.rst"]
suppress_warnings = ["config.cache"]

# Markdown as GitHub reads it.
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", "source"]

# The reference.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
nitpick_ignore_regex = [
    ("py:.*", r"(?!midpg_np\.).*")
]  # Types of other packages have no page here.

# Tutorials: every one runs while the site is built.  What an optional package needs is shown only.
NEEDS = {"15_check_your_pytorch_model": "torch"}
MISSING = {name: needs for name, needs in NEEDS.items() if find_spec(needs) is None}
tutorials_not_run = MISSING
sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": rf"[\\/](?!({'|'.join(MISSING) or '-'})\.py)\d\d_\w+\.py",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("figures.scrape",),
    "reset_modules": ("figures.own_folder",),
    "capture_repr": (),
    "abort_on_example_error": True,
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "show_signature": False,
    "parallel": os.cpu_count() or 1,
}

# The pages below a page, in the order of the menus.
RESULTS = "results" if (DOCS / "results.md").exists() else "results/index"
site_tree = {
    "index": [
        "Learn </tutorials/index>",
        "Derivations </derivations/index>",
        "Verify your own </verify>",
        "Reproduce the paper </experiments>",
        "API </api/index>",
        f"Results </{RESULTS}>",
        "Where is equation (n)? </where>",
        "Notation </notation>",
        "Use it </guide>",
        "Case format </case-format>",
        "Decisions </decisions/index>",
        "This site </site>",
    ],
    "tutorials/index": ["/play"],
    "derivations/index": [
        *(f"/derivations/{name}" for name in ("embedding", "affine", "mixture", "losses")),
        *(f"/derivations/{name}" for name in ("optimiser", "scenario_weights", "penalties")),
        *(f"/derivations/{name}" for name in ("weighting", "regulariser", "midpg", "grouped")),
        *(f"/derivations/{name}" for name in ("choices", "dnn", "ple", "star", "pepnet")),
        *(f"/derivations/{name}" for name in ("adasparse", "apg", "optmsm")),
        *(f"/derivations/{name}" for name in ("invariants", "parameter_counts", "checking")),
        "/derivations/*",
    ],
    "verify": ["/verify-pytorch", "/verify-jax", "/verify-files", "/mistakes"],
    "guide": ["/models", "/data", "/training", "/cli", "/estimator", "/gpu", "/benchmarks"],
    "decisions/index": ["/decisions/*"],
    RESULTS: ["/results/*", "/results/*/*"],
}
site_folders = ["interactive"]

html_theme = "pydata_sphinx_theme"
html_title = "midpg_np"
# MathJax from an installed package, so that the site needs no network.
MATHJAX = next(iter(find_spec("sphinx-mathjax-offline").submodule_search_locations))
mathjax_path = "mathjax/tex-chtml.js"
html_static_path = ["_static", f"{MATHJAX}/static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_sidebars = {"index": [], "source/**": [], "where": [], "notation": [], "site": []}
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "logo": {"text": "midpg_np"},
}


def setup(app):
    """Name languages of fences that Pygments does not know."""
    app.add_lexer("csv", TextLexer)
    app.add_lexer("tensorflow", PythonLexer)
