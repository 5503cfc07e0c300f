"""A term stands in bold where one who reads the tutorials in their order first meets it."""

import re

from book import ROOT

TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
TERMS = """
    label, scenario, field, scenario-aware, agnostic, context, batch, code, DNN, weights
    hidden vector, hidden unit, logit, sigmoid, loss, cross-entropy, parameter, gradient
    learning rate, epoch, seed, DPG, MI-DPG, table, embedding, forward pass, backward pass, cache
    adjoint, reader, scatter-add, bias, activation, ReLU, softplus, central difference, complex step
    witness, kink, tree, softmax, weighting matrix, Hadamard product, core, repeat operator
    row group, column group, generator, gate, tower, regulariser, matching pair, shuffled pair
    partner, mutual information, Jensen–Shannon divergence, nats, floor, Adam, auxiliary term
    scatter, backbone, stop-gradient, AUC, LogLoss, validation, checkpoint, calibrated, t-SNE
    silhouette, probe, ceiling, expert, pruner, hypernetwork, dump, name map, namespace, host
    kernel, CUDA graph
"""


def told(path):
    """Running text of a tutorial, without its title page, its headings and code."""
    lines = re.sub(r'^r?""".*?"""', "", path.read_text(), count=1, flags=re.S).splitlines()
    kept = []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        is_heading = bool(re.match(r"# -{3,}$", below))
        is_told = re.match(r"# (?!-{3,}$|%%| {6})", line) and not is_heading
        kept.append(line[2:] if is_told else "")
    return re.sub(r"``.*?``", "", "\n".join(kept), flags=re.S)


TEXT = "\n".join(told(path) for path in TUTORIALS)


def is_bold_at_first(term, text):
    words = re.escape(term).replace(r"\ ", r"\s+")
    first = re.search(rf"(?<![\w-]){words}(?:s|es)?(?![\w-])", text, re.I)
    return text.count("**", 0, first.start()) % 2 == 1


def test_terms_are_introduced_where_they_are_first_used():
    terms = [term.strip() for term in re.split(r"[,\n]", TERMS.strip())]
    assert [term for term in terms if not is_bold_at_first(term, TEXT)] == []


def test_a_term_used_before_it_is_introduced_is_found():
    assert is_bold_at_first("core", "scores, and a **core**: core")
    assert not is_bold_at_first("core", "**so** the cores; a **core** is")


def test_what_to_read_first_comes_before():
    for path in TUTORIALS[1:]:
        text = re.search(r"Read first.*?(?=\n\n|Equations|Derivations)", path.read_text(), re.S)[0]
        numbers = re.findall(r"\b\d\d\b", text)
        assert numbers and max(numbers) < path.name[:2], path.name


def test_tutorials_that_are_named_exist():
    named = set(re.findall(r"\btutorials?\s+(\d\d)\b", TEXT, re.I))
    assert len(named) > 10
    assert named <= {path.name[:2] for path in TUTORIALS}
