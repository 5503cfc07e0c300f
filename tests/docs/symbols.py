r"""Symbols of LaTeX formulas: what is the name of something, and what is grammar.

A symbol is a letter with its accent and its label: ``\hat X``, ``d_{aw}``, ``H^{main}``,
``\mathcal L_{mi}``, ``\mathrm{vec}``.  Grammar, which needs no row in the notation, is listed here:
operators, spaces, the functions that everybody knows; besides numbers, brackets and signs.  The bar
of an adjoint and primes are taken off.

What stands below or above a letter is an index or a label.  An index runs over something and says
nothing about what the letter means: the ``b`` of ``R_b``, the ``ij`` of ``W_{ij}``.  A label is
part of the name: the ``m`` of ``d_m``, the ``aw`` of ``E^{aw}``.  A table of the notation says
which letters are indices, and at which symbols; all others are labels.
"""

import re
from typing import NamedTuple

GRAMMAR = set(
    r"""
    left right big Big bigl bigr Bigl Bigr quad qquad mathrel underbrace overset frac tfrac sqrt
    langle rangle lfloor rfloor lVert rVert Vert lvert rvert lbrace rbrace mid
    odot times otimes cdot cdots dots pm sum partial infty
    in notin ne le ge gg approx sim to mapsto leftarrow Rightarrow Longrightarrow iff
    log exp max min inf cos tanh bmod rank sign Im top star
    """.split()
)
PROSE = {"text", "textbf", "texttt", "tag", "begin", "end"}  # what they hold is no formula
UPRIGHT = {"mathrm", "operatorname"}  # names of several letters
FONTS = UPRIGHT | {"mathcal", "mathbb", "mathbf"}
ACCENTS = {"bar", "hat", "tilde"}
LABELS = {"star", "*", "min", "max"}  # marks that are part of a name where they stand at it
POWERS = {"p", "t"}  # letters that stand above another as its power only
TOKEN = re.compile(r"\\([A-Za-z]+|.)|([A-Za-z])|(\d+(?:\.\d+)?)|(\s+)|(.)", re.S)


class Symbol(NamedTuple):
    """Letter with its accent, and what stands below and above it."""

    name: str
    below: tuple = ()
    above: tuple = ()


class Mark(NamedTuple):
    """A token that is no symbol."""

    text: str


class Reader:
    """Tokens of a formula, from left to right."""

    def __init__(self, formula):
        self.tokens = TOKEN.findall(formula)
        self.at = 0

    def peek(self):
        """Next token that is no space, as text; "" at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at][3]:
            self.at += 1
        if self.at == len(self.tokens):
            return ""
        command, *plain = self.tokens[self.at]
        return f"\\{command}" if command else "".join(plain)

    def next(self):
        token = self.peek()
        self.at += 1
        return token

    def argument(self):
        """Tokens of a group in braces, or of a single token."""
        if self.peek() != "{":
            return tuple(self.element(has_scripts=False))
        self.next()
        found = []
        while self.peek() not in ("}", ""):
            found += self.element()
        self.next()
        return tuple(found)

    def skip_text(self):
        depth = 0
        while self.peek():
            depth += {"{": 1, "}": -1}.get(self.next(), 0)
            if depth == 0:
                return

    def word(self):
        """Letters of a group, as they stand: the name of a function or of a set."""
        if self.peek() != "{":
            return self.next()
        self.next()
        letters = ""
        while self.peek() not in ("}", ""):
            letters += self.next()
        self.next()
        return letters

    def element(self, has_scripts=True):
        """Next symbol or mark; a group in braces is what it holds."""
        token = self.peek()
        if token == "{":
            return list(self.argument())
        self.next()
        command = token[1:] if token.startswith("\\") else ""
        if command in PROSE:
            self.skip_text()
            return [Mark("text")]
        if command in ACCENTS:
            return self.accented(command)
        if command in FONTS:
            word = self.word()
            name = word if command in UPRIGHT else f"{command} {word}"
        else:
            name = command or token
        is_symbol = name[0].isalpha() and name not in GRAMMAR
        if not is_symbol:
            return [Mark(name)]
        return [self.scripted(name) if has_scripts else Symbol(name)]

    def accented(self, accent):
        inner = self.argument()
        if accent == "bar":  # the adjoint of a thing is written with the thing's own letters
            return self.with_scripts(inner)
        (symbol,) = inner
        named = symbol._replace(name=f"{accent} {symbol.name}")
        return self.with_scripts((named,))

    def with_scripts(self, inner):
        """What stands under an accent, with the scripts that follow it."""
        *others, last = inner
        more = self.scripted("")
        last = last._replace(below=last.below + more.below, above=last.above + more.above)
        return [*others, last]

    def scripted(self, name):
        """Symbol of that name with the scripts that come next."""
        scripts = {"_": (), "^": ()}
        while self.peek() in ("_", "^", "'", "\\prime"):
            mark = self.next()
            if mark in scripts:
                scripts[mark] += self.argument()
        return Symbol(name, scripts["_"], scripts["^"])


def read(formula):
    """Symbols and marks of a formula."""
    reader, found = Reader(formula), []
    while reader.peek():
        found += reader.element()
    return found


def names(formula, indices):
    """Names of all symbols of a formula, those inside scripts too.

    ``indices`` maps a letter to the names at which it is an index; ``None`` stands for all names.
    """
    symbols = [token for token in read(formula) if isinstance(token, Symbol)]
    return set().union(*(names_of(symbol, indices) for symbol in symbols))


def names_of(symbol, indices):
    """Name of a symbol with its labels, and the names that its scripts are computed from."""
    inside = []
    if is_exponential(symbol):
        symbol, inside = Symbol("exp"), [*symbol.above]
    elif symbol.name.startswith("mathbb") or set(words(symbol.above)) <= POWERS:
        symbol, inside = symbol._replace(above=()), [*symbol.above]
    name = symbol.name
    for mark, script in (("_", symbol.below), ("^", symbol.above)):
        label, computed = take_apart(script, symbol.name, indices)
        name += f"{mark}{label}" if label else ""
        inside += computed
    symbols = [part for part in inside if isinstance(part, Symbol)]
    return ({name} - GRAMMAR).union(*(names_of(part, indices) for part in symbols))


def take_apart(script, name, indices):
    """Label that a script holds, and what it is computed from: the pi of ``e_{\\pi(b)}``."""
    labels, computed = [], []
    for word in words(script):
        if isinstance(word, Mark):
            labels += [word.text] * (word.text in LABELS)
        elif isinstance(word, Symbol):
            (labels if is_letter(word) and not is_computed(script) else computed).append(word)
        elif not all(runs_at(letter, name, indices) for letter in word):
            is_value = len(word) == 1 and is_computed(script)
            (computed if is_value else labels).append(Symbol(word))
    return ",".join(getattr(label, "name", label) for label in labels), computed


def words(script):
    """Tokens of a script, neighbouring letters in one: ``main`` and ``ij``, but ``r, c`` apart."""
    found = []
    for token in script:
        is_plain = is_letter(token) and len(token.name) == 1
        if is_plain and found and isinstance(found[-1], str):
            found[-1] += token.name
        else:
            found.append(token.name if is_plain else token)
    return found


def is_letter(token):
    return isinstance(token, Symbol) and not (token.below or token.above)


def is_computed(script):
    """Whether a script is an expression, such as ``l-1``, ``s_b`` or ``\\pi(b)``."""
    marks = {token.text for token in script if isinstance(token, Mark)}
    symbols = [token for token in script if isinstance(token, Symbol)]
    return bool(marks & set("()+-/=")) or not all(is_letter(symbol) for symbol in symbols)


def is_exponential(symbol):
    """Whether an e has an exponent; the context e has an index or the sign of a pair there."""
    exponent = [word for word in words(symbol.above) if not isinstance(word, Mark)]
    return symbol.name == "e" and bool(exponent) and exponent != ["l"]


def runs_at(letter, name, indices):
    return letter in indices and (indices[letter] is None or name in indices[letter])
