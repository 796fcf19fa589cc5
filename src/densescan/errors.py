"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """An input that the user can mend: a file, a value, a combination of options.

    The message is one line that says what came, what was expected and the remedy, and names the file when there
    is one. The command line prints it and exits with status 2; the library never prints and never exits.
    """
