"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_authority(folder: Path, name: str = "authority") -> tuple[Path, Path]:
    """A certificate authority: (certificate, key)."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-days", "2", "-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


def make_certificate(
    folder: Path, authority: tuple[Path, Path], name: str = "localhost", *, days: int = 2
) -> tuple[Path, Path]:
    """A certificate that the authority vouches for: (certificate, key); days < 0 = expired."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\n")
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(authority[0]), "-CAkey", str(authority[1])),
        *("-CAcreateserial", "-days", str(days), "-extfile", str(extensions), "-out", str(certificate)),
    )
    return certificate, key
