"""`python -m p2psync`: the command line."""

from p2psync.cli.main import run

if __name__ == "__main__":
    run()
