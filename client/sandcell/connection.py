"""How a remote gateway is reached: which certificates are trusted, and through which proxy."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx

from sandcell.errors import ConfigurationError
from sandcell.settings import ClientSettings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ssl_context(settings: ClientSettings) -> ssl.SSLContext | None:
    """What a TLS connection to the gateway goes by; None where there is none.

    Raises `ConfigurationError` when `ca_bundle` cannot be read.
    """
    if not (settings.url or "").startswith("https:"):
        return None
    context = httpx.create_ssl_context(verify=settings.verify)
    if settings.ca_bundle is not None and settings.verify:
        try:
            context.load_verify_locations(settings.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"setting ca_bundle (SANDCELL_CA_BUNDLE): expected a file with certificates "
                f"(PEM), got {str(settings.ca_bundle)!r}: {error}"
            ) from error
    return context


def proxy(settings: ClientSettings) -> str | None:
    """The proxy for the gateway: the one of the settings, or the environment's HTTP proxy.

    As everywhere, `NO_PROXY` names hosts without one; a gateway on this machine has none.
    """
    if settings.url is None:
        return None
    if settings.proxy is not None:
        return settings.proxy
    import urllib.request  # not for everybody

    url = urlsplit(settings.url)
    host = url.hostname or ""
    if host in _LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies().get(url.scheme)
    return found if found is not None and found.startswith(("http://", "https://")) else None
