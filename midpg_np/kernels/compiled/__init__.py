"""The kernels as loops for a CPU, compiled by Numba; imported when the first of them is called."""
