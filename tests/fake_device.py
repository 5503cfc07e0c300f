"""A device without hardware: arrays that refuse to mix with NumPy, as CuPy's do.

Where a calculation calls ``np.`` in place of ``xp.``, or reads a device value on the host, the
arrays raise; so a forgotten ``xp`` shows up on a laptop.
"""

from types import SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np

from midpg_np.backend import Backend, register_backend
from midpg_np.tree import tree_map

SCALARS = (bool, int, float, complex)
_OWNERS = WeakValueDictionary()  # memory on the host, by id -> the fake array that owns it


class FakeArray:
    """A NumPy array behind a wall; ``to_fake`` and ``to_numpy`` are its only doors."""

    __array_ufunc__ = None  # NumPy's operators decline, so that ours can raise
    __hash__ = None

    def __init__(self, data):
        self._data = np.asarray(data)
        # The array of which this one is a view, and which lives as long; None for an owner.
        self.base = _OWNERS.get(id(self._data.base))
        if self._data.base is None:
            _OWNERS.setdefault(id(self._data), self)

    @property
    def data(self):
        """Where the memory is, as CuPy tells it."""
        return SimpleNamespace(ptr=self._data.ctypes.data)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def _no_host_value(self, *args):
        raise TypeError("A device value was read on the host inside the calculation.")

    __bool__ = __int__ = __float__ = __complex__ = __index__ = __iter__ = item = tolist = (
        _no_host_value
    )

    def __len__(self):
        return len(self._data)

    def __getitem__(self, key):
        return FakeArray(self._data[unwrap(key)])

    def __setitem__(self, key, value):
        self._data[unwrap(key)] = unwrap(value)


def unwrap(thing):
    """Return the data of fake arrays, also inside sequences; anything from the host raises."""
    if isinstance(thing, FakeArray):
        return thing._data
    if isinstance(thing, (np.ndarray, np.generic)):
        raise TypeError(f"Unsupported type {type(thing)}: a host array met a device array.")
    if isinstance(thing, (tuple, list)):
        return type(thing)(unwrap(part) for part in thing)
    return thing


def wrap(result):
    if isinstance(result, (np.ndarray, np.generic)):
        return FakeArray(result)
    if isinstance(result, tuple) and any(isinstance(part, np.ndarray) for part in result):
        return tuple(wrap(part) for part in result)
    return result


def _walled(function):
    def call(*args, **kwargs):
        return wrap(function(*unwrap(args), **{name: unwrap(x) for name, x in kwargs.items()}))

    return call


def _method(name):
    def call(self, *args, **kwargs):
        return _walled(getattr(self._data, name))(*args, **kwargs)

    return call


def _operator(name):
    def call(self, other):
        if not isinstance(other, (FakeArray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(other)}: a host array met a device array.")
        # A number of Python's stays one: it does not widen float32, here as on a GPU.
        return wrap(getattr(np.ndarray, name)(self._data, unwrap(other)))

    return call


def _in_place(name):
    def call(self, other):
        if not isinstance(other, (FakeArray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(other)}: a host array met a device array.")
        getattr(np.ndarray, name)(self._data, np.asarray(unwrap(other))[()])
        return self

    return call


for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(FakeArray, f"__{_name}__", _in_place(f"__{_name}__"))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    setattr(FakeArray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(FakeArray, f"__r{_name}__", _operator(f"__r{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "and", "or"):
    setattr(FakeArray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ("neg", "invert"):
    setattr(FakeArray, f"__{_name}__", _method(f"__{_name}__"))
for _name in (
    *("astype", "copy", "reshape", "swapaxes", "transpose", "view"),
    *("sum", "mean", "max", "min", "any", "all"),
):
    setattr(FakeArray, _name, _method(_name))
for _name in (
    *("T", "real", "shape", "strides", "ndim", "size", "itemsize", "nbytes", "dtype", "flags"),
):
    setattr(FakeArray, _name, property(lambda self, name=_name: wrap(getattr(self._data, name))))


def _spoiled(memory):
    """Memory that nobody has written yet, so that an entry a kernel forgets is seen."""
    memory.reshape(-1).view(np.uint8).fill(255)  # not a number, or -1
    return FakeArray(memory)


# Functions that NumPy and CuPy share and that the package may use on a device.
_SHARED = (
    *("exp", "log1p", "tanh", "where", "concatenate", "repeat", "tile", "unique"),
    *("isfinite", "sqrt", "minimum", "maximum", "arange", "stack", "abs", "sign", "zeros_like"),
    *(
        "ones_like",
        "broadcast_to",
        "asfortranarray",
        "ascontiguousarray",
        "argsort",
        "searchsorted",
        "cumsum",
    ),
    *("multiply", "divide", "negative", "subtract", "matmul", "result_type"),
)


def _einsum(subscripts, *operands):
    """CuPy's einsum has no ``out``."""
    return np.einsum(subscripts, *operands)


fake_xp = SimpleNamespace(
    **{name: _walled(getattr(np, name)) for name in _SHARED},
    einsum=_walled(_einsum),
    zeros=lambda *args, **kwargs: FakeArray(np.zeros(*args, **kwargs)),
    full=lambda *args, **kwargs: FakeArray(np.full(*args, **kwargs)),
    empty=lambda *args, **kwargs: _spoiled(np.empty(*args, **kwargs)),
    ones=lambda *args, **kwargs: FakeArray(np.ones(*args, **kwargs)),
    asarray=lambda data, **kwargs: (
        data if isinstance(data, FakeArray) else FakeArray(np.asarray(data, **kwargs))
    ),
)


def _scatter_add(target, ids, rows):
    np.add.at(target._data, ids._data, rows._data)


def _matmul(a, b, out=None):
    return fake_xp.matmul(a, b, out=out)


register_backend(FakeArray, Backend("fake", fake_xp, _scatter_add, lambda x: x._data, _matmul))


def to_fake(tree):
    """Move an array, or every array of a tree, to the fake device."""
    if isinstance(tree, dict):
        return tree_map(lambda leaf: FakeArray(leaf.copy()), tree)
    return FakeArray(np.array(tree))
