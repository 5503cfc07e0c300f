"""MI-DPG and its relatives, every gradient derived by hand."""

__version__ = "0.1.0"
