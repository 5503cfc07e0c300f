"""Verification of other implementations: cases, comparison, mistakes, diagnosis, adapters."""
