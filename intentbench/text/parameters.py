"""Parameters of requests that people give: what may not be among them."""

from collections.abc import Mapping

from datamodules.errors import RequestError
from intentbench.text.endpoint import SHORTEST_SECRET

_SECRETS = ("key", "secret", "token", "auth", "password", "headers")
"""What a name that holds a secret has in it."""

_WRITTEN = "parameters are written into files; put the key into the variable --key-variable names"


def check_parameters(parameters: object, key: str = "") -> None:
    """Refuse parameters that would change what is asked, or would put a secret into files.

    Args:
        parameters: of a request, or a value among them.
        key: of the endpoint, which none may hold.

    Raises:
        RequestError: a name is `model`, `messages` or sounds like a secret's, or a text holds the
            key.
    """
    match parameters:
        case Mapping():
            for name, value in parameters.items():
                _check_name(name)
                check_parameters(value, key)
        case list():
            for value in parameters:
                check_parameters(value, key)
        case str() if len(key) >= SHORTEST_SECRET and key in parameters:
            raise RequestError(f"--parameters hold the key, and {_WRITTEN}")


def _check_name(name: str) -> None:
    if name in ("model", "messages"):
        raise RequestError(f"--parameters: {name!r} is given otherwise; leave it out")
    secret = any(word in name.lower() for word in _SECRETS)
    if secret and name not in ("max_tokens", "max_completion_tokens"):
        raise RequestError(f"--parameters: {name!r} might hold a secret, and {_WRITTEN}")
