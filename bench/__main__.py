"""`python -m bench` is the same program as `eludebench`."""

from bench.cli import main

if __name__ == "__main__":
    main()
