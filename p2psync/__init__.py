"""Keep folders the same on many devices, without a server.

From the bottom up; a package imports from its own row's package and from rows below only:

    errors, failpoints              what a person can be told; where a test can end the daemon
    core                            values and decisions
    protocol, config                bytes to messages and back; settings
    ports                           what the engine needs of the world
    storage, files, net, engine     SQLite; disk; network; the work itself, over ports
    web                             the control interface
    daemon                          builds everything
    cli                             the command line
"""

__version__ = "0.1.0"
