"""`python -m app.healthcheck URL`: ends with 0 if it answers 2xx, for containers without curl."""

import sys
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

_TIMEOUT_S = 4


def main(url: str) -> int:
    # A proxy that the environment names is for other hosts.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S):
            return 0
    except (HTTPException, OSError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
