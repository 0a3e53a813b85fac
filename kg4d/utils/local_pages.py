"""Pages that a command serves to the browser on this machine."""

from urllib.parse import urlsplit


def is_own_page(host: str, origin: str | None) -> bool:
    """Whether a request is addressed to this machine by its own name, and was not made by a page of another site.

    The first rules out names of other sites that lead here (DNS rebinding).

    Args:
        host: The header `Host`.
        origin: The header `Origin`; None where the browser sends none, as for the page itself.

    >>> is_own_page("127.0.0.1:8080", None), is_own_page("localhost:8080", "http://localhost:8080")
    (True, True)
    >>> is_own_page("evil.org:8080", None), is_own_page("localhost:8080", "http://localhost:3000")
    (False, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in ("127.0.0.1", "localhost") and origin in (None, f"http://{host}")
