"""Reading figures back."""

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"


def assert_png(path):
    """Assert that a file holds a picture, and more of it than its head."""
    content = path.read_bytes()
    assert content.startswith(PNG) and len(content) > 1000


def line_of(axes, label):
    """The line with a label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line


def legend_texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def look(line):
    """What tells a line without colour."""
    return line.get_linestyle(), line.get_marker()


def values_in(axes):
    """The numbers written into the cells of a heat map, as a matrix of text."""
    (image,) = axes.images
    shown = np.full(image.get_array().shape, "", dtype=object)
    for text in axes.texts:
        j, i = map(int, text.get_position())
        shown[i, j] = text.get_text()
    return shown
