"""Entry point of the command ``midpg``: errors become one sentence, tracebacks need ``--debug``."""

from __future__ import annotations

import sys
import warnings
from typing import Any, NoReturn

from midpg_np.checks import GradientMismatchError


def main() -> None:
    """Run the command line; exit code 0, 1 (a check failed) or 2 (an error)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debugging = len(arguments) < len(sys.argv) - 1
    if is_debugging:
        _app()(arguments)
        return
    warnings.showwarning = _show_warning
    try:
        _app()(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except GradientMismatchError as error:
        _exit(1, f"gradient check failed: {error}")
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError, RuntimeError) as error:
        _exit(2, str(error))


def _app() -> Any:
    try:
        from midpg_np.commands import app
    except ImportError as error:
        raise ImportError(
            f"the command line needs {error.name}, which is not installed; "
            "install the extra 'app': pip install 'midpg_np[app]'."
        ) from error
    return app


def _exit(code: int, message: str) -> NoReturn:
    print(f"midpg: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"midpg: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
