"""Validate a crate with roc-validator, offline: `validate_crate.py <crate> <file for its cache>`.

The context of RO-Crate 1.1, which a crate names, may not be fetched. ro-crate-py ships that of 1.3; what we use of it
differs from 1.1 in the addresses of four terms of Bioschemas.
"""

import io
import json
import sys
from importlib.resources import files

import requests
import urllib3
from requests_cache import CachedSession
from rocrate_validator import models, services

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class Shipped(requests.adapters.BaseAdapter):
    """Answers as the address of the context would."""

    def send(self, request, **options):
        document = json.loads((files("rocrate") / "data" / "ro-crate.jsonld").read_text())
        for term in ("ComputationalWorkflow", "FormalParameter"):
            document["@context"][term] = f"https://bioschemas.org/{term}"
        for term in ("input", "output"):
            document["@context"][term] = f"https://bioschemas.org/ComputationalWorkflow#{term}"
        body = io.BytesIO(json.dumps(document).encode())
        headers = {"Content-Type": "application/ld+json"}
        raw = urllib3.HTTPResponse(body, headers, status=200, preload_content=False, request_url=request.url)
        return requests.adapters.HTTPAdapter().build_response(request, raw)

    def close(self):
        pass


crate, cache = sys.argv[1:]
with CachedSession(cache, backend="sqlite", expire_after=-1) as session:
    session.mount("https://w3id.org/", Shipped())
    session.get(CONTEXT)
settings = models.ValidationSettings(
    rocrate_uri=crate,
    profile_identifier="workflow-run-crate",
    requirement_severity=models.Severity.REQUIRED,
    offline=True,
    cache_path=cache,
)
issues = services.validate(settings).get_issues()
print("\n".join(f"{issue.check.identifier}: {issue.message}" for issue in issues))
sys.exit(bool(issues))
