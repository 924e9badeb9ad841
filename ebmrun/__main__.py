"""`python -m ebmrun`: the same command as `ebmrun`."""

from ebmrun.command.cli import main

if __name__ == "__main__":
    main()
