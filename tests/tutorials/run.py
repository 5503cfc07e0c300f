"""Run a tutorial as a script, then each solution in a copy of what the tutorial left behind."""

import runpy
import sys
from pathlib import Path

from lesson import Lesson

path = Path(sys.argv[1])
namespace = runpy.run_path(str(path), run_name="__main__")
for number, code in Lesson(path.read_text(encoding="utf-8")).solutions.items():
    exec(compile(code, f"{path.name}, solution {number}", "exec"), dict(namespace))
