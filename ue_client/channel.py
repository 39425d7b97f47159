"""Channels to the gNB, in the clear or by TLS; and why the two ends cannot agree on TLS."""

from __future__ import annotations

import asyncio
import ssl

import grpc

from shared.errors import InvalidInput
from shared.tls import read_authorities, read_identity
from ue_client.settings import Settings

NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""Option of a channel to an address that was named: it never goes through what `http_proxy` says."""

PING_S, PONG_S = 20, 10
"""How often a connection is tried whose other end is silent, and how long the answer may take: then it is closed, for
the gNB's machine may have gone without a word.
"""

_OPTIONS = (
    *NO_PROXY,
    ("grpc.keepalive_time_ms", 1000 * PING_S),
    ("grpc.http2.ping_timeout_ms", 1000 * PONG_S),  # of "grpc.keepalive_timeout_ms" alone nothing comes
    ("grpc.http2.max_pings_without_data", 0),  # no limit
)
PATIENCE_S = 5.0
"""For a handshake: who does not answer by then may do so later."""

AGAIN_S = 1.0
"""After which a connection that was ended without a word is tried again: the gNB may have been stopping."""


class Channels:
    """Opens channels to the gNB of the settings, by TLS if they name whom to trust.

    Raises:
        InvalidInput: a file of TLS cannot be used, or there is a certificate to show and nobody to trust.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._authorities = read_authorities("tls_ca", settings.tls_ca)
        self._identity = read_identity(settings.tls_certificate, settings.tls_key)
        if self._identity is not None and self._authorities is None:
            raise InvalidInput(f"tls_certificate: {settings.tls_certificate}, and no tls_ca; wanted both")

    @property
    def address(self) -> str:
        """host:port of the gNB, as it is now. Raises InvalidInput."""
        return self._settings.address()

    def open(self) -> grpc.aio.Channel:
        """A channel; it connects when it is used."""
        if self._authorities is None:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        shown = (self._identity.key, self._identity.certificate) if self._identity else (None, None)
        credentials = grpc.ssl_channel_credentials(self._authorities, *shown)
        return grpc.aio.secure_channel(self.address, credentials, options=_OPTIONS)

    async def disagreement(self) -> str | None:
        """Why no channel can come about as long as both ends have these files, which gRPC does not say; None if it can,
        or nobody is there.
        """
        first = await self._handshake()
        if first is None or self._authorities is None:
            return first
        await asyncio.sleep(AGAIN_S)
        return await self._handshake()

    async def _handshake(self) -> str | None:
        """Agree on TLS, and wait for the first byte of HTTP/2: a gNB that refuses our certificate does so after it."""
        address = self.address
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=self._context())
                try:
                    if self._authorities is None:
                        return f"the gNB at {address} speaks TLS; wanted --tls-ca"
                    if not await reader.read(1):
                        shown = (
                            "refuses ours" if self._identity else "wants a certificate, --tls-certificate and --tls-key"
                        )
                        return f"the gNB at {address} {shown}"
                finally:
                    writer.transport.abort()
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of the gNB at {address} is refused by --tls-ca: {error.verify_message}"
        except ssl.SSLError as error:
            if self._authorities is not None:
                return f"the gNB at {address} does not speak TLS as we do: {error.reason}"
        except OSError:  # a timeout, too
            pass
        return None

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._authorities is not None:
            context.load_verify_locations(cadata=self._authorities.decode())
        else:  # only to see whether it is TLS
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self._identity is not None:
            context.load_cert_chain(str(self._settings.tls_certificate), self._settings.tls_key)
        context.set_alpn_protocols(["h2"])
        return context
