"""TLS for a recorded conversation: a certificate made for it alone, and a file that the server logs its secrets to."""

import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = "chat.example"
"""What clients ask for (SNI), and what the certificate is for."""


class Sealing:
    """Contexts of both sides.

    Args:
        version: The only one that is spoken, as `TLSv1.3`.
        trusted: Whether the client knows the certificate.
    """

    def __init__(self, directory: str, version: str, host: str, *, trusted: bool = True) -> None:
        self.trusted = trusted
        self.certificate, self.keys = Path(directory, "certificate.pem"), Path(directory, "keys")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address(host))])
        until = now + datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
        builder = builder.add_extension(names, critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate.write_bytes(pem)
        both = Path(directory, "server.pem")
        both.write_bytes(pem + private)

        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(both)
        self.server.minimum_version = self.server.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        self.server.keylog_filename = str(self.keys)
        self.client = ssl.create_default_context(cafile=str(self.certificate) if trusted else None)
        self.client.keylog_filename = None
        for context in (self.server, self.client):
            context.set_alpn_protocols(["http/1.1"])

    @property
    def key_lines(self) -> bytes:
        """The key log without the comment that names a program."""
        if not self.keys.exists():
            return b""
        lines = self.keys.read_bytes().splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith(b"#"))
