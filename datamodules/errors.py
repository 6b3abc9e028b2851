"""Errors that a person can mend. Each message says what, where and what to do, in one line.

The command line prints them without a traceback and leaves with status 2.
"""


class RequestError(Exception):
    """The request was wrong: a name, a value, a file. Base of all errors that people cause."""


class DatasetNotFoundError(RequestError):
    """No catalogue entry of that name, or none of its files is anywhere to be found."""


class ChecksumError(RequestError):
    """A file is not the one that the catalogue describes."""


class FormatError(RequestError):
    """A file cannot be read in the format it is said to have."""


class StatisticsError(RequestError):
    """A prepared dataset differs from what its catalogue entry promises, or is empty."""
