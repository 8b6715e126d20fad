"""What the `darkroom` command says instead of a traceback. Every message is written for its user.

CommandError                exit code 1
├── UsageError              exit code 2: the command line asks for something that does not exist
├── AddressError            the host or port cannot be listened on
├── DataDirError            the data folder cannot be used, or another stack uses it
├── RedisError              there is no Valkey or Redis to run, or the one given does not answer
├── ChildError              a process of the stack ended when it should not
├── NotReadyError           the stack did not come up in the time it was given
├── ServerError             the gateway refused, or cannot be reached
└── DemoError               the demo did not come out as it should
"""


class CommandError(Exception):
    exit_code = 1


class UsageError(CommandError):
    exit_code = 2


class AddressError(CommandError):
    pass


class DataDirError(CommandError):
    pass


class RedisError(CommandError):
    pass


class ChildError(CommandError):
    pass


class NotReadyError(CommandError):
    pass


class ServerError(CommandError):
    pass


class DemoError(CommandError):
    pass
