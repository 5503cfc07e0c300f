"""How JAX compiles quickly: compiling is most of the time of its tests."""

from functools import cache

import jax

OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def _is_known(name):
    try:
        jax.jit(lambda x: x, compiler_options={name: OPTIONS[name]})(1.0)
    except jax.errors.JaxRuntimeError:  # they change from version to version
        return False
    return True


@cache
def compile_fast():
    """Options for ``jax.jit``, those that this version knows."""
    return {name: value for name, value in OPTIONS.items() if _is_known(name)}
