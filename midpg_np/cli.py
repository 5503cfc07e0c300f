"""Entry point of the command ``midpg``: errors become one sentence, tracebacks need ``--debug``."""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """Run the command line; exit code 0, 1 (a check failed) or 2 (an error)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debugging = len(arguments) < len(sys.argv) - 1
    try:
        from midpg_np.commands import app
    except ImportError as error:
        if is_debugging:
            raise
        sys.exit(
            f"midpg: the command line needs {error.name}, which is not installed; "
            "install the extra 'app': pip install 'midpg_np[app]'."
        )
    if is_debugging:
        app(arguments)
        return
    warnings.showwarning = _show_warning
    try:
        app(arguments)
    except KeyboardInterrupt:
        sys.exit("midpg: interrupted; --resume with the same --out goes on from the checkpoint.")
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError, RuntimeError) as error:
        print(f"midpg: {error}", file=sys.stderr)
        sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"midpg: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
