"""DNN."""

from systems.system import System

SYSTEM = System("dnn", options={"activation": ("relu", "tanh")})
