"""What can go wrong with keys, beside a queue server that is away (app.jobs.errors).

AccessError
├── TooManyKeysError    the tenant has as many active keys as it may
├── KeyNotFoundError    there is no key with this id
└── UnreadableKeyError  another version of Darkroom wrote it
"""


class AccessError(Exception):
    """Base of everything that KeyStore raises."""


class TooManyKeysError(AccessError):
    pass


class KeyNotFoundError(AccessError):
    pass


class UnreadableKeyError(AccessError):
    pass
