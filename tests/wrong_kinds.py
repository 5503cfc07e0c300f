"""Ways in which a whole model can be wrong on purpose."""

from copy import deepcopy
from dataclasses import dataclass, field, replace

from small import small_model, training_case

from midpg_np.models import MODELS


def registered_name(kind):
    """Name of the class in ``MODELS`` that ``kind`` is or derives from."""
    names = {cls: name for name, cls in MODELS.items()}
    return next(names[cls] for cls in kind.__mro__ if cls in names)


def small_copy(kind, options):
    """The small model that ``kind`` derives from, as ``kind``."""
    right = small_model(registered_name(kind), **options)
    return kind(**{field: getattr(right, field) for field in right.__dataclass_fields__})


def same_fields(kind, layer):
    """Return a layer, or a part of a model, as another class with the same fields."""
    return kind(**{name: getattr(layer, name) for name in layer.__dataclass_fields__})


def title(model, options):
    """Name of a small model with options."""
    return " ".join([model, *(f"{name}={value}" for name, value in options.items())])


@dataclass(frozen=True)
class WrongClass:
    """A subclass with one mistake in its backward."""

    kind: type
    options: dict = field(default_factory=dict)

    @property
    def forward(self):
        """Name of the right model, whose forward it keeps."""
        return title(registered_name(self.kind), self.options)

    @property
    def right(self):
        return small_model(registered_name(self.kind), **self.options)

    def build(self, rng):
        return training_case(small_copy(self.kind, self.options), rng)


@dataclass(frozen=True)
class WrongOption:
    """The forward of one configuration with the backward of another."""

    name: str
    option: str
    in_forward: object
    in_backward: object
    options: dict = field(default_factory=dict)

    @property
    def forward(self):
        """Name of the right model, whose forward it keeps."""
        is_default = getattr(small_model(self.name, **self.options), self.option) == self.in_forward
        changed = {} if is_default else {self.option: self.in_forward}
        return title(self.name, self.options | changed)

    @property
    def right(self):
        return small_model(self.name, **(self.options | {self.option: self.in_forward}))

    def build(self, rng):
        other = replace(self.right, **{self.option: self.in_backward})
        wrong = training_case(other, deepcopy(rng))
        right = training_case(self.right, rng)
        right.forward(right.inputs, None)
        wrong.forward(wrong.inputs, None)  # leaves the template of an adjoint behind
        return replace(right, backward=wrong.backward)


@dataclass(frozen=True)
class WrongForward:
    """A subclass with one mistake in its forward; its backward may fit it.

    Values from elsewhere must reject it: those of the PyTorch reference, in training unless
    ``training`` is False.
    """

    kind: type
    options: dict = field(default_factory=dict)
    training: bool = True

    @property
    def system(self):
        """Name of the model that it should have been."""
        return registered_name(self.kind)

    def build(self):
        return small_copy(self.kind, self.options)
