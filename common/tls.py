"""TLS as a broker URL asks for it: whose certificates are believed, and which one is ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from common.errors import ConfigError

#: Files in PEM: certificates of authorities that are believed, our own certificate, its key.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_REQUIREMENTS = ("required", "optional", "none")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
OPTIONS = (*FILES, "ssl_cert_reqs", "ssl_check_hostname")


def check(options: Mapping[str, str]) -> None:
    """Raises ValueError for a value that means nothing."""
    if options.get("ssl_cert_reqs", _REQUIREMENTS[0]) not in _REQUIREMENTS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_REQUIREMENTS)}")
    if options.get("ssl_check_hostname", "true").lower() not in _FLAGS:
        raise ValueError("ssl_check_hostname must be true or false")


def settings(options: Mapping[str, str]) -> dict[str, Any]:
    """The driver's settings. Raises ConfigError for a file that cannot be read, before anything connects."""
    found: dict[str, Any] = {name: value for name, value in options.items() if name in OPTIONS}
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = _FLAGS[found["ssl_check_hostname"].lower()]
    for name in FILES:
        if name in found and not os.access(found[name], os.R_OK):
            raise ConfigError(f"the broker URL's {name} '{found[name]}' cannot be read: is it there, and yours?")
    return found


def fault(error: BaseException) -> str:
    """What TLS, and not the network, has against a connection; empty for any other error."""
    # Here, and not above: it takes a tenth of the client's import time, and whoever uses TLS has it by now.
    import ssl

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"the broker's certificate is not believed ({seen.verify_message}); look at ssl_ca_certs"
        if isinstance(seen, ssl.SSLError) and "ALERT" in (seen.reason or ""):
            words = (seen.reason or "").lower().replace("_", " ")
            return f"the broker ends the TLS handshake ({words}); look at ssl_certfile and ssl_keyfile"
        seen = seen.__cause__ or seen.__context__
    return ""
