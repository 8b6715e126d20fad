"""Fixtures that the gateway's tests have as well."""

from tests.app.conftest import no_darkroom_environment as no_darkroom_environment
