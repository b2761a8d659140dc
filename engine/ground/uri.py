"""URIs as people and programs write them: a scheme, a bucket, a path that is taken as it is, and options of the filesystem.

Arrow parses a whole URI by the book: a blank or a bracket in a name is an error, `?` and `@` cut it. Here only the root of a filesystem is parsed.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from engine.settings.credentials import hide_credentials

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):(?=/)", re.IGNORECASE)
ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
STORES = ("s3", "gs", "abfs", "abfss")
SCHEMES = ("", "file", "http", "https", "hdfs", "viewfs", *STORES)
"""Schemes that images may have; "" is a local path."""

OPTIONS = re.compile(
    "(region|scheme|endpoint_override|anonymous|allow_bucket_creation|allow_bucket_deletion|force_virtual_addressing|retry_limit_seconds"
    "|tls_ca_file_path|check_directory_existence_before_creation|allow_delayed_open|smart_defaults|background_writes|project_id"
    "|default_bucket_location|enable_tls|tenant_id|client_id|client_secret|credential_kind|blob_storage_\\w+|dfs_storage_\\w+"
    "|user|replication|buffer_size|default_block_size|kerb_ticket)=[^&]*"
)
"""Options of Arrow's filesystems. Any other text after a `?` belongs to the path."""


@dataclass(frozen=True)
class Uri:
    """The parts of a URI."""

    scheme: str
    """In lower case, as Arrow spells it; "" for a local path."""
    authority: str
    """Bucket or host, with credentials."""
    path: str
    """Without the slash after the authority; not decoded."""
    options: str = ""

    @property
    def root(self) -> str:
        """The URI that opens the filesystem of every path in the bucket."""
        return f"{self.scheme}://{self.authority}" + (f"?{self.options}" if self.options else "")

    @property
    def decoded(self) -> str:
        """The path of a local file: absolute, with `%20` as a blank. An error of the file system names what is not one."""
        return "/" + unquote(self.path)


def split_uri(uri: str) -> Uri:
    """The parts of `uri`: a local path (`~/` is the home folder), or one with a scheme in any case."""
    match = SCHEME.match(uri)
    if match is None:
        return Uri("", "", os.path.expanduser(uri) if uri.startswith("~/") else uri)
    scheme = (match[1] or match[2]).lower()
    scheme, rest, options = ALIASES.get(scheme, scheme), uri[match.end() :], ""
    before, mark, after = rest.rpartition("?")
    if scheme not in ("file", "http", "https") and mark and _are_options(after, before):
        rest, options = before, after
    authority, _, path = rest.partition("/")
    return Uri(scheme, authority, path, options)


def _are_options(query: str, before: str) -> bool:
    return "/" not in before or all(OPTIONS.fullmatch(part) for part in query.split("&"))


def without_credentials(uri: str) -> str:
    """`uri` without user name, password, tokens and signatures, for messages and files."""
    return hide_credentials(uri) if "://" in uri else uri
