"""``python -m mergerisk``."""

from mergerisk.cli.main import main

if __name__ == "__main__":
    main()
